"""Workers on tasks: outcomes for the ledger."""

from ripieno.measure.probe import Prober, Probing, choose_probe_tasks, name_probes
from ripieno.measure.profile import Campaign, Profiler, Progress, require_plain

__all__ = [
    "Campaign",
    "Prober",
    "Probing",
    "Profiler",
    "Progress",
    "choose_probe_tasks",
    "name_probes",
    "require_plain",
]
