"""Writer: one thread that commits all waiting rows together, chained to all before them.

If another process holds the database, or it does not answer, the current commit ends after the writer's patience, and
all waiting requests are refused together. From then on, the writer tries each commit for a moment only, so that callers
get a refusal at once, and the writer notices the end of the fault at once. Refused rows are rolled back. Only if the
COMMIT itself takes too long may its rows be recorded late, and then once, because each row has an id. Rows without a
waiting caller stay in memory until the database accepts them.
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
from ripieno.ledger.damage import Damage
from ripieno.ledger.database import PATIENT_S
from ripieno.ledger.outbox import Outbox
from ripieno.loops import Loop

SPOOL_S = 1.0
"""Patience with a locked database if there is an outbox."""
RETRY_S = 1.0
"""Seconds between two attempts to empty the outbox while no rows come."""
RECOVERY_S = 0.25
"""Seconds between two probes of a faulty database while no rows come."""
WATCH_S = 0.1
"""Seconds between two checks of the current commit."""
GRACE_S = 0.4
"""Time of a commit beyond the patience after which the watcher gives it up. Most drivers keep to the patience."""
CLOSE_S = 10.0
"""Wait for a database that does not answer at the end of the process."""
_SLOW = "check the disk, or the server, of ledger.url"

Fault = LedgerError | OSError | None
"""Error of the writer's work, if any."""


@dataclass(slots=True)
class _Work:
    """The current batch."""

    batch: Sequence[WriteRequest]
    began: float
    """Monotonic time of its start."""
    is_committing: bool = False
    is_given_up: bool = False


class Writer:
    """Accepts rows from any thread. Its own thread commits them, and another one watches that thread.

    Rows that the database refuses wait in the outbox. Without one, their callers get the error.
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
        """Guards the state that both threads change: the current work, kept rows, the outbox."""
        self.damage = Damage(engine, url=url)
        self.damage.on_first = lambda: self.submit((), None, is_probe=True)  # wakes the thread, which checks
        wanted, patience = self._require_wanted, self._patience_s
        self._commits = Committer(
            engine, url=url, clock=clock, damage=self.damage, patience_s=patience, require_wanted=wanted
        )
        self.aside = Aside(outbox, commit=self._commits.commit, lock=self._lock)
        self._work: _Work | None = None
        self._stuck: LedgerError | None = None
        """Error of a work that was given up while the database still blocks the thread."""
        self._is_server = engine.dialect.name != "sqlite"
        self._stirred = threading.Event()
        """Set if there is work to watch."""
        self._is_over = threading.Event()
        self.loop = Loop("ledger", every_s=RETRY_S, clock=clock)
        self.watch = Loop("ledger watch", every_s=WATCH_S, clock=clock)
        self._thread = threading.Thread(target=self._write_forever, name="ripieno-ledger", daemon=True)
        self._watcher = threading.Thread(target=self._watch_forever, name="ripieno-ledger-watch", daemon=True)
        self._thread.start()
        self._watcher.start()

    def submit(self, rows: Sequence[EntryRow], waiting: Waiting | None, *, is_probe: bool = False) -> None:
        """Queue rows, which are written all or none. Refused rows without a caller are kept while there is room.

        Args:
            rows: the rows.
            waiting: future of the caller, if one waits. It gets the number of new rows, or the error.
            is_probe: True tests the database although there are no rows.
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
        """Wait until everything submitted before is settled, so that a reader sees it."""
        if self._settled < self._submitted and threading.current_thread() is not self._thread:
            done: Future[int] = Future()
            self.submit((), done)
            done.exception()  # the submitters of refused rows got the error

    def require_reachable(self) -> None:
        """Refuse to read from an unreachable server, because a reader would wait for the driver's timeout.

        Raises:
            LedgerError: the latest transaction could not reach the server.
        """
        fault = self._stuck or self._commits.unreachable
        if fault is not None and self._is_server:
            raise fault

    def close(self) -> None:
        """Write the waiting rows, then end. Give up a database that does not answer after `CLOSE_S`."""
        self._intake.put(None)
        self._thread.join(CLOSE_S + self._patience_s)
        self._is_over.set()
        self._refuse_late()
        self._stirred.set()
        self._watcher.join()

    def _refuse_late(self) -> None:
        """Refuse rows that were submitted after the end of the writer's thread."""
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
            elif self._commits.fault is not None and self.damage.found is None:
                self._carry_out((), self._probe)
            if self.damage.is_check_due:
                self._carry_out((), partial(self._probe, checks=True))
            if self.aside.has_kept and self._commits.fault is None:
                self._carry_out((), self.aside.write_kept)
        self.aside.log_lost()
        self._commits.drop_connection()

    def _find_pause(self) -> float | None:
        """Return the wait for the next request; None waits without limit."""
        if self.aside.waiting:
            return RETRY_S
        return RECOVERY_S if self._commits.fault is not None else None

    def _carry_out(self, batch: Sequence[WriteRequest], write: Callable[[], Fault]) -> None:
        """Run work on the database, then complete its requests, unless the watcher has already done so."""
        work = _Work(batch=batch, began=time.monotonic())
        self._work = work
        self.loop.run_now(write)
        with self._lock:
            self._work = self._stuck = None
            if work.is_given_up or not batch:
                return
            self._settled += len(batch)
        self._intake.end_commit(batch)
        settle_all(batch)

    def _write(self, batch: Sequence[WriteRequest]) -> Fault:
        try:
            if self.aside.waiting:
                fault = self.aside.empty_outbox()
                if fault is not None:
                    with self._lock:
                        self.aside.spool_or_refuse(batch, LedgerError(f"ledger {self.url!r} is behind its outbox"))
                    return fault
            if any(request.is_probe for request in batch) and not any(request.rows for request in batch):
                self._commits.probe(writes=self.aside.is_at_fault)
            self._commits.commit(batch)
        except LedgerError as error:
            with self._lock:
                assert self._work is not None, "a batch is work"
                if not self._work.is_given_up:  # otherwise its callers already have the error
                    self.aside.spool_or_refuse(batch, error)
            return error
        except BaseException as error:
            self.aside.refuse(batch, error)  # every waiting caller must get the error
            raise
        fault = self._commits.fault
        self.aside.is_at_fault = fault is not None
        return fault

    def _probe(self, *, checks: bool = False) -> Fault:
        """Test whether the database accepts rows again. `checks` reads all of a damaged one."""
        try:
            if checks:
                self._commits.check()
            else:
                self._commits.probe(writes=self.aside.is_at_fault)
        except LedgerError as error:
            return error
        self.aside.is_at_fault = False
        return None

    def _require_wanted(self) -> None:
        """Refuse to commit a work that was given up, because its callers got an error.

        Raises:
            LedgerError: the work was given up.
        """
        with self._lock:
            assert self._work is not None, "every transaction is watched"
            if self._stuck is not None:
                raise self._stuck
            self._work.is_committing = True

    def _watch_forever(self) -> None:
        """Give up work that takes too long. The watcher sleeps while there is no work."""
        while not self._is_over.is_set():
            self._stirred.wait()
            self._stirred.clear()
            while self._settled < self._submitted and not self._is_over.wait(WATCH_S):
                self.watch.run_now(self._give_up)

    def _give_up(self) -> None:
        """Refuse all requests that wait for a database which does not answer in time, or put them into the outbox."""
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
                self.aside.spool_or_refuse(late, _explain_commit(self._stuck) if work.is_committing else self._stuck)
            queued = self._intake.drain()
            self.aside.spool_or_refuse(queued, self._stuck)
            late += queued
            self._settled += len(late)
        settle_all(late)


def _explain_commit(error: LedgerError) -> LedgerError:
    """Return the error during a COMMIT, whose result is not known yet."""
    return LedgerError(f"{error.message} to commit: it may be recorded late, and then once", hint=error.hint)
