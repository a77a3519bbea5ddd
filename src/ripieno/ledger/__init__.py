"""The append-only record."""

from ripieno.ledger.ledger import PROBE_PREFIX, Late, Ledger, Measured, Stored, Verification
from ripieno.ledger.portable import export_data, import_data

__all__ = ["PROBE_PREFIX", "Late", "Ledger", "Measured", "Stored", "Verification", "export_data", "import_data"]
