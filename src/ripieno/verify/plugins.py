"""The built-in verifiers with facts of their own, behind the same door as any plugin."""

from ripieno.plugins import NoOptions, Plugin
from ripieno.verify.external import ReasoningGymVerifier, Verifier

reasoning_gym: Plugin[NoOptions, Verifier] = Plugin(NoOptions, lambda options: ReasoningGymVerifier())
