"""Damage: what is known about a damaged database. Nothing is written from the first damage until a check passes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from ripieno.errors import LedgerCorrupt, LedgerError
from ripieno.ledger.database import explain_fault, translated_faults

CHECK_S = 5.0
"""Seconds between two checks of a damaged database. A check reads all of it; ten times its duration passes before the
next one.
"""


class Damage:
    """The damage of one database.

    Args:
        engine: the database.
        url: its URL for errors.
    """

    def __init__(self, engine: Engine, *, url: str) -> None:
        self.found: LedgerCorrupt | None = None
        """Error of the first damage; None if none was found, or if a check has passed since."""
        self.on_first: Callable[[], object] = lambda: None
        """Called when a reader meets the first damage."""
        self._engine = engine
        self._url = url
        self._check_at = 0.0

    @property
    def is_check_due(self) -> bool:
        """Return whether there is damage, and it is time to check whether it was repaired."""
        return self.found is not None and time.monotonic() >= self._check_at

    def require_none(self) -> None:
        """Refuse work whose record would be lost.

        Raises:
            LedgerCorrupt: the database is damaged, and no check has passed since.
        """
        if self.found is not None:
            raise self.found

    def note(self, fault: LedgerError) -> bool:
        """Note a fault of the database, and return whether it is the first damage. Damage of one entry is none."""
        if not isinstance(fault, LedgerCorrupt) or fault.entry is not None or self.found is not None:
            return False
        self.found = fault
        return True

    def note_read(self, reason: str) -> None:
        """Note the driver's message of a failed statement. Malformed JSON is damage of one entry."""
        if "json" not in reason.lower() and self.note(explain_fault(reason, self._url)):
            self.on_first()

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Read the whole database, run the block, and forget the damage if neither fails.

        Raises:
            LedgerError: the database is still damaged, or cannot be read.
        """
        began = time.monotonic()
        try:
            self._engine.dispose()  # the file may have been replaced
            if self._engine.dialect.name == "sqlite":
                self._read_all()
            yield
            self.found = None
        finally:
            ended = time.monotonic()
            self._check_at = ended + max(CHECK_S, 10 * (ended - began))

    def _read_all(self) -> None:
        reader = self._engine.execution_options(reads_only=True)
        with translated_faults(self._url), reader.connect() as connection:
            found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        if found != "ok":
            raise explain_fault(f"malformed: {found}", self._url)
