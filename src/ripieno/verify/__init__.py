"""Run to Verdicts: checkers, sandboxed tests, judges."""

from ripieno.verify.external import Verifier
from ripieno.verify.grading import Grading
from ripieno.verify.judge import JudgeVerifier

__all__ = ["Grading", "JudgeVerifier", "Verifier"]
