"""Policies: Estimates to a Choice."""

from ripieno.route.policies.base import Policy
from ripieno.route.policies.rules import RulePolicy
from ripieno.route.policies.utility import UtilityPolicy

__all__ = ["Policy", "RulePolicy", "UtilityPolicy"]
