"""Answers to Verdicts: checkers, sandboxed tests, judges."""

from ripieno.verify.external import Verifier
from ripieno.verify.grading import Grading

__all__ = ["Grading", "Verifier"]
