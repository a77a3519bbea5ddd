"""Task to Features: what the router knows before it chooses."""

from ripieno.analyze.analyzer import Analyzer

__all__ = ["Analyzer"]
