"""Google's Gemini, towards workers only."""

from ripieno.wires.gemini.upstream import GeminiUpstream

__all__ = ["GeminiUpstream"]
