"""For us and for plugin authors: conformance kits, a scripted provider on a real socket, a fixed clock."""

from ripieno.testing.clock import FixedClock
from ripieno.testing.conformance import (
    check_encoder,
    check_learner,
    check_policy,
    check_predictor,
    check_provider,
)
from ripieno.testing.obliging import oblige
from ripieno.testing.scripted import Reply, ScriptedServer, Seen

__all__ = [
    "FixedClock",
    "Reply",
    "ScriptedServer",
    "Seen",
    "check_encoder",
    "check_learner",
    "check_policy",
    "check_predictor",
    "check_provider",
    "oblige",
]
