"""Task to Features: what routing may know before it chooses."""

from ripieno.analyze.analyzer import Analyzer

__all__ = ["Analyzer"]
