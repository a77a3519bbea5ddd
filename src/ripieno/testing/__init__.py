"""For us and for plugin authors: conformance kits, a scripted provider on a real socket, a fixed clock."""

from ripieno.testing.as_asked import answer_as_asked
from ripieno.testing.clock import FixedClock
from ripieno.testing.conformance import (
    check_encoder,
    check_learner,
    check_policy,
    check_predictor,
    check_provider,
)
from ripieno.testing.scripted import Reply, ScriptedServer, Seen

__all__ = [
    "FixedClock",
    "Reply",
    "ScriptedServer",
    "Seen",
    "answer_as_asked",
    "check_encoder",
    "check_learner",
    "check_policy",
    "check_predictor",
    "check_provider",
]
