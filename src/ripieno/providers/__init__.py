"""How a worker is called: wires, retries, breakers, prices."""

from ripieno.providers.base import Piece, Provider
from ripieno.providers.caller import Called, Caller, LiveCall
from ripieno.providers.health import Health
from ripieno.providers.residents import Resident, Residents

__all__ = ["Called", "Caller", "Health", "LiveCall", "Piece", "Provider", "Resident", "Residents"]
