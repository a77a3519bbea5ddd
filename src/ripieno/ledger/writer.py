"""Writer: one thread that commits all waiting rows together, chained to all before them.

A database may be held by another process, or may not answer. The commit under way then ends after the writer's
patience, and all requests that wait are refused together. From then on the writer tries each commit for a moment only,
so that a refusal comes at once, and the end of the fault is seen at once. Refused rows are rolled back. Only where the
database takes too long over the COMMIT itself may its rows be recorded late, and then once, because each row has a
name. Rows that no caller waits for stay in memory until the database takes them.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from ripieno.domain import Clock
from ripieno.errors import LedgerError
from ripieno.ledger.aside import Aside
from ripieno.ledger.batch import Intake, Waiting, WriteRequest, settle_all
from ripieno.ledger.codec import EntryRow
from ripieno.ledger.commit import Committer
from ripieno.ledger.database import PATIENT_S
from ripieno.ledger.outbox import Outbox
from ripieno.loops import Loop

SPOOL_S = 1.0
"""How long a locked database is waited for where there is an outbox."""
RETRY_S = 1.0
"""Between two tries to empty the outbox while nothing is written."""
RECOVERY_S = 0.25
"""Between two looks whether a database takes entries again while nothing is written."""
WATCH_S = 0.1
"""Between two looks at a commit that is under way."""
GRACE_S = 0.4
"""What a commit may take beyond the patience before it is given up: most drivers keep to the patience by themselves."""
CLOSE_S = 10.0
"""How long the end of the process waits for a database that does not answer."""
_SLOW = "check the disk, or the server, of ledger.url"

Fault = LedgerError | OSError | None
"""What kept the writer from its work, if anything did."""


@dataclass(slots=True)
class _Work:
    """A batch that is being written."""

    batch: Sequence[WriteRequest]
    began: float
    """On the monotonic clock."""
    is_committing: bool = False
    is_given_up: bool = False


class Writer:
    """Takes rows from any thread, and has them committed by a thread of its own, which another one watches.

    Args:
        engine: the opened database.
        url: its name in errors.
        clock: when entries are recorded.
        outbox: where rows wait while the database cannot take them; without, they are refused.
        patience_s: how long rows wait for a database that another process holds, in seconds.
    """

    def __init__(
        self, engine: Engine, *, url: str, clock: Clock, outbox: Outbox | None = None, patience_s: float = PATIENT_S
    ) -> None:
        self.url = url
        self._patience_s = patience_s if outbox is None else min(patience_s, SPOOL_S)
        self._intake = Intake()
        self._submitted = 0
        self._settled = 0
        self._lock = threading.Lock()
        """Held over what both threads change: the work under way, kept rows, the outbox."""
        self._commits = Committer(
            engine, url=url, clock=clock, patience_s=self._patience_s, require_wanted=self._require_wanted
        )
        self.aside = Aside(outbox, commit=self._commits.commit, lock=self._lock)
        self._work: _Work | None = None
        self._stuck: LedgerError | None = None
        """Why the work under way was given up, while the database still holds the thread."""
        self._is_server = engine.dialect.name != "sqlite"
        self._stirred = threading.Event()
        """Set when there is something to watch."""
        self._is_over = threading.Event()
        self.loop = Loop("ledger", every_s=RETRY_S, clock=clock)
        self.watch = Loop("ledger watch", every_s=WATCH_S, clock=clock)
        self._thread = threading.Thread(target=self._write_forever, name="ripieno-ledger", daemon=True)
        self._watcher = threading.Thread(target=self._watch_forever, name="ripieno-ledger-watch", daemon=True)
        self._thread.start()
        self._watcher.start()

    def submit(self, rows: Sequence[EntryRow], waiting: Waiting | None, *, is_probe: bool = False) -> None:
        """Take rows to be written, all or none; refused ones that nobody waits for are kept as long as there is room.

        Args:
            rows: what is written.
            waiting: who waits; set to the error where the rows are refused.
            is_probe: whether the database is tried though there are no rows.
        """
        self._submitted += 1
        self._intake.put(WriteRequest(rows=rows, done=waiting, is_probe=is_probe))
        if self._is_over.is_set():
            self._refuse_late()
        elif self._stuck is not None:
            self._give_up()
        elif not self._stirred.is_set():
            self._stirred.set()

    def wait(self) -> None:
        """Return when all that was submitted before is settled, so that a reader finds what it wrote."""
        if self._settled < self._submitted and threading.current_thread() is not self._thread:
            done: Future[int] = Future()
            self.submit((), done)
            done.exception()  # what was refused was told to who submitted it

    def require_reachable(self) -> None:
        """Refuse to read a server that cannot be reached: a reader would wait for it as long as the driver does.

        Raises:
            LedgerError: it could not be reached just now.
        """
        fault = self._stuck or self._commits.unreachable
        if fault is not None and self._is_server:
            raise fault

    def close(self) -> None:
        """Write what waits, then end; a database that does not answer is left after a while."""
        self._intake.put(None)
        self._thread.join(CLOSE_S + self._patience_s)
        self._is_over.set()
        self._refuse_late()
        self._stirred.set()
        self._watcher.join()

    def _refuse_late(self) -> None:
        """Refuse what was submitted after the end: no thread is left that would write it."""
        late = self._intake.drain()
        for request in late:
            request.error = LedgerError(f"ledger {self.url!r} is closed")
        settle_all(late)

    def _write_forever(self) -> None:
        is_last = False
        if self.aside.waiting:
            self._carry_out((), self.aside.empty_outbox)
        while not is_last:
            batch, is_last = self._intake.gather(self._find_pause())
            if batch:
                self._carry_out(batch, partial(self._write, batch))
            elif self.aside.waiting:
                self._carry_out((), self.aside.empty_outbox)
            elif self._commits.fault is not None:
                self._carry_out((), self._look)
            if self.aside.has_kept and self._commits.fault is None:
                self._carry_out((), self.aside.write_kept)
        self.aside.tell_lost()
        self._commits.drop_connection()

    def _find_pause(self) -> float | None:
        """How long to wait for the next request; None waits until there is one."""
        if self.aside.waiting:
            return RETRY_S
        return RECOVERY_S if self._commits.fault is not None else None

    def _carry_out(self, batch: Sequence[WriteRequest], write: Callable[[], Fault]) -> None:
        """Do something with the database, and tell who waits for it, unless the watcher has told them meanwhile."""
        work = _Work(batch=batch, began=time.monotonic())
        self._work = work
        self.loop.run_now(write)
        with self._lock:
            self._work = self._stuck = None
            if work.is_given_up or not batch:
                return
            self._settled += len(batch)
        self._intake.note_commit(batch)
        settle_all(batch)

    def _write(self, batch: Sequence[WriteRequest]) -> Fault:
        try:
            if self.aside.waiting:
                fault = self.aside.empty_outbox()
                if fault is not None:
                    with self._lock:
                        self.aside.take(batch, LedgerError(f"ledger {self.url!r} is behind its outbox"))
                    return fault
            if any(request.is_probe for request in batch) and not any(request.rows for request in batch):
                self._commits.probe(writes=self.aside.is_at_fault)
            self._commits.commit(batch)
        except LedgerError as error:
            with self._lock:
                assert self._work is not None, "a batch is work"
                if not self._work.is_given_up:  # who waits was told already
                    self.aside.take(batch, error)
            return error
        except BaseException as error:
            self.aside.refuse(batch, error)  # every waiting caller must hear of it
            raise
        fault = self._commits.fault
        self.aside.is_at_fault = fault is not None
        return fault

    def _look(self) -> Fault:
        """Find out whether the database takes entries again."""
        try:
            self._commits.probe(writes=self.aside.is_at_fault)
        except LedgerError as error:
            return error
        self.aside.is_at_fault = False
        return None

    def _require_wanted(self) -> None:
        """Refuse to commit what was given up: who waited for it was told that it is not recorded.

        Raises:
            LedgerError: it was given up.
        """
        with self._lock:
            assert self._work is not None, "every transaction is watched"
            if self._stuck is not None:
                raise self._stuck
            self._work.is_committing = True

    def _watch_forever(self) -> None:
        """Give up what takes too long; nothing is looked at while nothing is under way."""
        while not self._is_over.is_set():
            self._stirred.wait()
            self._stirred.clear()
            while self._settled < self._submitted and not self._is_over.wait(WATCH_S):
                self.watch.run_now(self._give_up)

    def _give_up(self) -> None:
        """Refuse, or put into the outbox, all that waits for a database that does not answer in time."""
        with self._lock:
            work, limit_s = self._work, self._patience_s + GRACE_S
            if work is None or time.monotonic() - work.began < limit_s:
                return
            late: list[WriteRequest] = []
            if self._stuck is None:
                self._stuck = LedgerError(f"ledger {self.url!r} did not answer within {limit_s:.1f} s", hint=_SLOW)
            if not work.is_given_up:
                work.is_given_up = True
                late += work.batch
                self.aside.take(late, _explain_commit(self._stuck) if work.is_committing else self._stuck)
            queued = self._intake.drain()
            self.aside.take(queued, self._stuck)
            late += queued
            self._settled += len(late)
        settle_all(late)


def _explain_commit(error: LedgerError) -> LedgerError:
    """What is told where the COMMIT itself is under way: nobody can know yet how it ends."""
    return LedgerError(f"{error.message} to commit: it may be recorded late, and then once", hint=error.hint)
