"""Builds every object from Settings, swaps pool and checkpoint, and closes it all."""

from ripieno.app.app import FOLLOW_S, App
from ripieno.app.build import build_pool
from ripieno.app.memories import MemoryApp

__all__ = ["FOLLOW_S", "App", "MemoryApp", "build_pool"]
