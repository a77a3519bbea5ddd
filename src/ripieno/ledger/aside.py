"""Aside: where rows go that the database did not take. The outbox keeps them, or memory does, or they are refused."""

import logging
import threading
from collections.abc import Callable, Sequence

from ripieno.errors import LedgerCorrupt, LedgerError
from ripieno.ledger.batch import MOST_ROWS, WriteRequest
from ripieno.ledger.outbox import Outbox

log = logging.getLogger(__name__)

MOST_KEPT = 20_000
"""Rows that nobody waits for, and that are kept while the database takes none."""
MOST_TRIES = 3
"""How often kept rows are tried, each time after a commit that worked; the last time one by one."""
MOST_TOGETHER = 500
"""Kept requests of one commit."""

Commit = Callable[[Sequence[WriteRequest]], None]


class Aside:
    """Rows that wait for the database, and how they get there.

    Args:
        outbox: where rows wait durably; without, those that somebody waits for are refused.
        commit: writes rows, or raises a LedgerError.
        lock: held over what more than one thread changes.
    """

    def __init__(self, outbox: Outbox | None, *, commit: Commit, lock: threading.Lock) -> None:
        self._outbox = outbox
        self._commit = commit
        self._lock = lock
        self.is_at_fault = False
        """Whether the latest commit was refused."""
        self._kept: list[WriteRequest] = []
        """Refused rows that nobody waits for."""
        self._tries = 0

    @property
    def waiting(self) -> int:
        """Rows in the outbox."""
        return len(self._outbox) if self._outbox is not None else 0

    @property
    def can_spool(self) -> bool:
        """Whether rows that the database does not take are kept in an outbox, and were so far."""
        return self._outbox is not None and not self.is_at_fault

    @property
    def has_kept(self) -> bool:
        """Whether rows are kept in memory."""
        return bool(self._kept)

    def take(self, batch: Sequence[WriteRequest], error: LedgerError) -> None:
        """Spool or refuse rows that are not settled yet; the lock is held."""
        if not self._spool(batch, error):
            self.refuse(batch, error)

    def refuse(self, batch: Sequence[WriteRequest], error: BaseException) -> None:
        """Refuse rows; those that nobody waits for are kept in memory as long as there is room."""
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
        """Write what waits in the outbox; gives what kept it from that, if anything did."""
        assert self._outbox is not None
        try:
            rows = self._outbox.read()
            for start in range(0, len(rows), MOST_ROWS):
                self._commit([WriteRequest(rows=rows[start : start + MOST_ROWS], done=None)])
            with self._lock:
                if len(self._outbox) > len(rows):  # what is in the ledger already is known by its names
                    return LedgerError("more was put into the outbox while it was emptied")
                self._outbox.clear()
        except (LedgerError, OSError) as error:
            return error
        log.warning("%d entries of the outbox are in the ledger now", len(rows))
        return None

    def write_kept(self) -> LedgerError | None:
        """Write some of the kept rows; gives what refused them, if anything did.

        Those that are refused again and again, each alone, are dropped.
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

    def tell_lost(self) -> None:
        """Log what is lost with the end of the process."""
        for request in self._kept:
            log.error("%d entries could not be recorded before the end", len(request.rows))

    def _spool(self, batch: Sequence[WriteRequest], error: LedgerError) -> bool:
        """Keep the rows aside, durably; False where there is no place."""
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
