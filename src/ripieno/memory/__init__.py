"""Recall before, remember after."""

from ripieno.memory.memory import Memory
from ripieno.memory.store import Store

__all__ = ["Memory", "Store"]
