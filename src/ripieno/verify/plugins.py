"""The built-in verifiers with their own facts, registered like any plugin."""

from ripieno.plugins import NoOptions, Plugin
from ripieno.verify.external import ReasoningGymVerifier, Verifier

reasoning_gym: Plugin[NoOptions, Verifier] = Plugin(NoOptions, lambda options: ReasoningGymVerifier())
