"""Calls to workers: wires, retries, breakers, prices."""

from ripieno.providers.base import Provider, find_fault
from ripieno.providers.caller import Caller
from ripieno.providers.health import WorkerHealth
from ripieno.providers.lane import Lanes
from ripieno.providers.leases import Leases
from ripieno.providers.residents import Resident, Residents, is_resident
from ripieno.providers.result import CallAnswered, CallFailed, CallResult, LiveCall, require_answer
from ripieno.providers.unavailable import UnavailableProvider
from ripieno.wires.pieces import Piece

__all__ = [
    "CallAnswered",
    "CallFailed",
    "CallResult",
    "Caller",
    "Lanes",
    "Leases",
    "LiveCall",
    "Piece",
    "Provider",
    "Resident",
    "Residents",
    "UnavailableProvider",
    "WorkerHealth",
    "find_fault",
    "is_resident",
    "require_answer",
]
