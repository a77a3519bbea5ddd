"""The append-only record."""

from ripieno.ledger.database import PATIENT_S
from ripieno.ledger.found import Late, Measured, Stored, Verification
from ripieno.ledger.keys import KeyStore, digest_secret
from ripieno.ledger.ledger import HASTE_S, PROBE_PREFIX, Ledger
from ripieno.ledger.outbox import Outbox
from ripieno.ledger.portable import export_data, import_data

__all__ = [
    "HASTE_S",
    "PATIENT_S",
    "PROBE_PREFIX",
    "KeyStore",
    "Late",
    "Ledger",
    "Measured",
    "Outbox",
    "Stored",
    "Verification",
    "digest_secret",
    "export_data",
    "import_data",
]
