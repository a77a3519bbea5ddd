"""Recall before a task, remember after it."""

from ripieno.memory.memory import Memory
from ripieno.memory.store import Store

__all__ = ["Memory", "Store"]
