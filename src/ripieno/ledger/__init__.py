"""The append-only record."""

from ripieno.ledger.holds import Change, Held, Holds, Reserve, begin_period
from ripieno.ledger.keys import KEY_PREFIX, KeyStore, digest_secret
from ripieno.ledger.ledger import PROBE_PREFIX, Late, Ledger, Measured, Stored, Verification
from ripieno.ledger.outbox import Outbox
from ripieno.ledger.portable import export_data, import_data

__all__ = [
    "KEY_PREFIX",
    "PROBE_PREFIX",
    "Change",
    "Held",
    "Holds",
    "KeyStore",
    "Late",
    "Ledger",
    "Measured",
    "Outbox",
    "Reserve",
    "Stored",
    "Verification",
    "begin_period",
    "digest_secret",
    "export_data",
    "import_data",
]
