"""Measures workers on tasks, and records the outcomes in the ledger."""

from ripieno.measure.probe import Prober, Probing, choose_probe_tasks, name_probes
from ripieno.measure.profile import Campaign, CampaignProgress, Profiler, require_plain

__all__ = [
    "Campaign",
    "CampaignProgress",
    "Prober",
    "Probing",
    "Profiler",
    "choose_probe_tasks",
    "name_probes",
    "require_plain",
]
