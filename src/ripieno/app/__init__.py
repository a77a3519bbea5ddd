"""Builds every object from Settings, swaps pool and checkpoint, and closes it all."""

from ripieno.app.build import build_pool
from ripieno.app.installation import FOLLOW_S, Installation
from ripieno.app.memories import MemoryApp

__all__ = ["FOLLOW_S", "Installation", "MemoryApp", "build_pool"]
