"""Features and Pool to Mask, Estimates and Decision."""

from ripieno.route.mask import Conditions, find_able, mask_workers
from ripieno.route.pacer import Pacer
from ripieno.route.policies import Policy, RulePolicy, UtilityPolicy
from ripieno.route.router import NAMED, ConditionsSource, Predictor, Router
from ripieno.route.utility import PRESETS, Scales

__all__ = [
    "NAMED",
    "PRESETS",
    "Conditions",
    "ConditionsSource",
    "Pacer",
    "Policy",
    "Predictor",
    "Router",
    "RulePolicy",
    "Scales",
    "UtilityPolicy",
    "find_able",
    "mask_workers",
]
