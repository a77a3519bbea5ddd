"""Aside: rows that the database refused. They wait in the outbox or in memory, or their callers get the error."""

import logging
import threading
from collections.abc import Callable, Sequence

from ripieno.errors import LedgerCorrupt, LedgerError
from ripieno.ledger.batch import MOST_ROWS, WriteRequest
from ripieno.ledger.outbox import Outbox

log = logging.getLogger(__name__)

MOST_KEPT = 20_000
"""Rows without a waiting caller that are kept in memory while the database refuses them."""
MOST_TRIES = 3
"""Attempts to write kept rows, each after a successful commit; the last one writes them one by one."""
MOST_TOGETHER = 500
"""Kept requests of one commit."""

Commit = Callable[[Sequence[WriteRequest]], None]


class Aside:
    """Rows that wait for the database. Without an outbox, rows with a waiting caller are refused."""

    def __init__(self, outbox: Outbox | None, *, commit: Commit, lock: threading.Lock) -> None:
        self._outbox = outbox
        self._commit = commit
        self._lock = lock
        self.is_at_fault = False
        """True if the latest commit was refused."""
        self._kept: list[WriteRequest] = []
        """Refused rows without a waiting caller."""
        self._tries = 0

    @property
    def waiting(self) -> int:
        """Return the number of rows in the outbox."""
        return len(self._outbox) if self._outbox is not None else 0

    @property
    def can_spool(self) -> bool:
        """Return whether an outbox keeps the rows that the database refuses."""
        return self._outbox is not None and not self.is_at_fault

    @property
    def has_kept(self) -> bool:
        """Return whether rows are kept in memory."""
        return bool(self._kept)

    def spool_or_refuse(self, batch: Sequence[WriteRequest], error: LedgerError) -> None:
        """Put unsettled rows into the outbox, or refuse them. The caller holds the lock."""
        if not self._spool(batch, error):
            self.refuse(batch, error)

    def refuse(self, batch: Sequence[WriteRequest], error: BaseException) -> None:
        """Refuse rows. Those without a waiting caller are kept in memory while there is room."""
        self.is_at_fault = True
        room = MOST_KEPT - sum(len(request.rows) for request in self._kept)
        may_keep = isinstance(error, LedgerError) and not isinstance(error, LedgerCorrupt)
        for request in batch:
            request.error = error
            if request.done is not None or not request.rows:
                continue
            if may_keep and len(request.rows) <= room:
                room -= len(request.rows)
                self._kept.append(WriteRequest(rows=request.rows, done=None))
            else:
                log.error("%d entries could not be recorded: %s", len(request.rows), error)

    def empty_outbox(self) -> LedgerError | OSError | None:
        """Write the rows of the outbox; return the error if that fails."""
        assert self._outbox is not None
        try:
            rows = self._outbox.read()
            for start in range(0, len(rows), MOST_ROWS):
                self._commit([WriteRequest(rows=rows[start : start + MOST_ROWS], done=None)])
            with self._lock:
                if len(self._outbox) > len(rows):  # the next attempt skips the recorded rows by their ids
                    return LedgerError("the outbox got more rows while it was emptied")
                self._outbox.clear()
        except (LedgerError, OSError) as error:
            return error
        log.warning("%d entries of the outbox are in the ledger now", len(rows))
        return None

    def write_kept(self) -> LedgerError | None:
        """Write some of the kept rows; return the error if the database refuses them.

        Rows that are refused at every attempt are dropped.
        """
        with self._lock:
            kept, self._kept = self._kept[:MOST_TOGETHER], self._kept[MOST_TOGETHER:]
        self._tries += 1
        is_last_try = self._tries >= MOST_TRIES
        for part in [[request] for request in kept] if is_last_try else [kept]:
            try:
                self._commit(part)
            except LedgerError as error:
                if not is_last_try:
                    with self._lock:
                        self._kept = kept + self._kept
                    return error
                log.exception("%d entries could not be recorded", sum(len(each.rows) for each in part))
        self._tries = 0
        return None

    def log_lost(self) -> None:
        """Log the rows that are lost with the end of the process."""
        for request in self._kept:
            log.error("%d entries could not be recorded before the end", len(request.rows))

    def _spool(self, batch: Sequence[WriteRequest], error: LedgerError) -> bool:
        """Put the rows into the outbox; return False if that is not possible."""
        if self._outbox is None or isinstance(error, LedgerCorrupt):
            return False
        rows = [row for request in batch for row in request.rows]
        try:
            if rows:
                self._outbox.put(rows)
        except (LedgerError, OSError):
            log.exception("neither the ledger nor its outbox takes entries")
            return False
        if rows:
            log.warning("entries wait in the outbox: %s", error.message)
        self.is_at_fault = False
        for request in batch:
            request.count = len(request.rows)
        return True
