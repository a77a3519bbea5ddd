"""The append-only record."""

from ripieno.ledger.database import PATIENT_S
from ripieno.ledger.found import Measured, Stored, TrafficOutcome, Verification
from ripieno.ledger.holds import Change, Held, Holds, Reserve, begin_period
from ripieno.ledger.keys import KEY_PREFIX, KeyStore, digest_secret
from ripieno.ledger.ledger import HASTE_S, Ledger
from ripieno.ledger.outbox import Outbox
from ripieno.ledger.outcomes import PROBE_PREFIX
from ripieno.ledger.portable import export_data, import_data

__all__ = [
    "HASTE_S",
    "KEY_PREFIX",
    "PATIENT_S",
    "PROBE_PREFIX",
    "Change",
    "Held",
    "Holds",
    "KeyStore",
    "Ledger",
    "Measured",
    "Outbox",
    "Reserve",
    "Stored",
    "TrafficOutcome",
    "Verification",
    "begin_period",
    "digest_secret",
    "export_data",
    "import_data",
]
