"""Web pages over the ledger, the pool, the checkpoints and memory; they read, and change nothing."""

from ripieno.dashboard.dashboard import Dashboard
from ripieno.dashboard.page import Job, Page, PageRequest, read_asset

__all__ = ["Dashboard", "Job", "Page", "PageRequest", "read_asset"]
