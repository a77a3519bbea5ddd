"""Workers on tasks: outcomes for the ledger."""

from ripieno.measure.profile import Campaign, Profiler, Progress

__all__ = ["Campaign", "Profiler", "Progress"]
