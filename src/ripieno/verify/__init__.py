"""Answers to Verdicts: checkers, tests in a jail, judges."""

from ripieno.verify.external import Verifier
from ripieno.verify.grading import Grading

__all__ = ["Grading", "Verifier"]
