"""Test tools for this project and for plugin authors: conformance kits, a scripted server, a fixed clock."""

from ripieno.testing.clock import FixedClock
from ripieno.testing.conformance import (
    check_encoder,
    check_learner,
    check_policy,
    check_predictor,
    check_provider,
)
from ripieno.testing.scripted import ReceivedRequest, Reply, ScriptedServer

__all__ = [
    "FixedClock",
    "ReceivedRequest",
    "Reply",
    "ScriptedServer",
    "check_encoder",
    "check_learner",
    "check_policy",
    "check_predictor",
    "check_provider",
]
