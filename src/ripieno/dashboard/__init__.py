"""Web pages over the ledger, the pool, the checkpoints and memory; they read, and change nothing."""

from ripieno.dashboard.dashboard import Dashboard
from ripieno.dashboard.page import Asked, Job, Page, read_asset

__all__ = ["Asked", "Dashboard", "Job", "Page", "read_asset"]
