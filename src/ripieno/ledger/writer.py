"""Writer: one thread that commits all waiting rows together, chained to all before them.

A database may be held by another process, or may not answer. The commit under way then ends after the writer's
patience, and all requests that wait are refused together. From then on the writer tries each commit for a moment only,
so that a refusal comes at once, and the end of the fault is seen at once. Refused rows are rolled back. Only where the
database takes too long over the COMMIT itself may its rows be recorded late, and then once, because each row has a
name. Rows that no caller waits for stay in memory until the database takes them.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection

from ripieno.domain import Clock, find_periods
from ripieno.errors import LedgerCorrupt, LedgerError
from ripieno.ledger.batch import Request, Waiting, settle_all, take_fresh
from ripieno.ledger.codec import GENESIS, Row, chain_digest
from ripieno.ledger.database import PATIENT_S, explain_fault, is_lock, translated_faults
from ripieno.ledger.outbox import Outbox
from ripieno.ledger.statements import Statements, insert_rows

log = logging.getLogger(__name__)

MOST_ROWS = 2000
"""Rows of one group commit: more would make the first one wait."""
MOST_NAMES = 500
"""Values of one IN list."""
PATIENCE_S = 0.05
"""How long a row that nobody waits for may wait for company: the next decision's commit takes it along."""
GAP_S = 0.002
"""Between two commits under load: what comes meanwhile shares one, and a worker's answer takes longer anyway."""
SPOOL_S = 1.0
"""How long a locked database is waited for where there is an outbox."""
MOMENT_S = 0.1
"""How long a database is waited for that refused the latest commit: other writers' commits take no longer."""
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
MOST_KEPT = 20_000
"""Rows that nobody waits for, and that are kept while the database takes none."""
MOST_TRIES = 3
"""How often kept rows are tried, each time after a commit that worked; the last time one by one."""
MOST_TOGETHER = 500
"""Kept requests of one commit."""
_SLOW = "check the disk, or the server, of ledger.url"


@dataclass(slots=True)
class _Work:
    """A batch that is being written."""

    batch: Sequence[Request]
    began: float
    """On the monotonic clock."""
    is_committing: bool = False
    is_given_up: bool = False


class Writer:
    """Owns the only connection that appends.

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
        self._engine = engine
        self._clock = clock
        self._outbox = outbox
        self._patience_s = patience_s if outbox is None else min(patience_s, SPOOL_S)
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._submitted = 0
        self._settled = 0
        self._committed_at = 0.0
        self._is_busy = False
        """Whether the latest commit was waited for by more than one."""
        self.is_at_fault = False
        """Whether the latest commit was refused."""
        self._is_down = False
        """Whether the latest transaction failed, whatever became of its rows."""
        self._kept: list[Request] = []
        """Refused rows that nobody waits for."""
        self._tries = 0
        self._lock = threading.Lock()
        """Held over what both threads change: the work under way, kept rows, the outbox."""
        self._work: _Work | None = None
        self._stuck: LedgerError | None = None
        """Why the work under way was given up, while the database still holds the thread."""
        self._unreachable: LedgerError | None = None
        """Why the database could not be reached at the latest try; None where it answers, and is locked."""
        self._is_server = engine.dialect.name != "sqlite"
        self._stirred = threading.Event()
        """Set when there is something to watch."""
        self._is_over = threading.Event()
        self._sql = Statements(engine)
        self._connection: PoolProxiedConnection | None = None
        self._thread = threading.Thread(target=self._write_forever, name="ripieno-ledger", daemon=True)
        self._watcher = threading.Thread(target=self._watch_forever, name="ripieno-ledger-watch", daemon=True)
        self._thread.start()
        self._watcher.start()

    @property
    def waiting(self) -> int:
        """Rows in the outbox."""
        return len(self._outbox) if self._outbox is not None else 0

    @property
    def _is_given_up(self) -> bool:
        """Whether who waits for the work under way was told already."""
        return self._work is not None and self._work.is_given_up

    @property
    def can_spool(self) -> bool:
        """Whether rows that the database does not take are kept in an outbox, and were so far."""
        return self._outbox is not None and not self.is_at_fault

    def submit(self, rows: Sequence[Row], waiting: Waiting | None, *, is_probe: bool = False) -> None:
        """Take rows to be written, all or none; refused ones that nobody waits for are kept as long as there is room.

        Args:
            rows: what is written.
            waiting: who waits; set to the error where the rows are refused.
            is_probe: whether the database is tried though there are no rows.
        """
        self._submitted += 1
        self._queue.put(Request(rows=rows, done=waiting, is_probe=is_probe))
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

    def close(self) -> None:
        """Write what waits, then end; a database that does not answer is left after a while."""
        self._queue.put(None)
        self._thread.join(CLOSE_S + self._patience_s)
        self._is_over.set()
        self._refuse_late()
        self._stirred.set()
        self._watcher.join()

    def _refuse_late(self) -> None:
        """Refuse what was submitted after the end: no thread is left that would write it."""
        late = self._drain()
        for request in late:
            request.error = LedgerError(f"ledger {self.url!r} is closed")
        settle_all(late)

    def _write_forever(self) -> None:
        is_last = False
        if self.waiting:
            self._carry_out((), self._empty_outbox)
        while not is_last:
            batch, is_last = self._gather()
            if batch:
                self._carry_out(batch, partial(self._write, batch))
            elif self.waiting:
                self._carry_out((), self._empty_outbox)
            elif self._is_down:
                self._carry_out((), self._look)
            if self._kept and not self._is_down:
                self._carry_out((), self._write_kept)
        for request in self._kept:
            log.error("%d entries could not be recorded before the end", len(request.rows))
        self._drop_connection()

    def _carry_out(self, batch: Sequence[Request], write: Callable[[], object]) -> None:
        """Do something with the database, and tell who waits for it, unless the watcher has told them meanwhile."""
        work = _Work(batch=batch, began=time.monotonic())
        self._work = work
        write()
        with self._lock:
            self._work = self._stuck = None
            if work.is_given_up or not batch:
                return
            self._settled += len(batch)
        self._committed_at = time.perf_counter()
        self._is_busy = sum(request.done is not None for request in batch) > 1
        settle_all(batch)

    def _watch_forever(self) -> None:
        """Give up what takes too long; nothing is looked at while nothing is under way."""
        while not self._is_over.is_set():
            self._stirred.wait()
            self._stirred.clear()
            while self._settled < self._submitted and not self._is_over.wait(WATCH_S):
                self._give_up()

    def _give_up(self) -> None:
        """Refuse, or put into the outbox, all that waits for a database that does not answer in time."""
        with self._lock:
            work, limit_s = self._work, self._patience_s + GRACE_S
            if work is None or time.monotonic() - work.began < limit_s:
                return
            late: list[Request] = []
            if self._stuck is None:
                self._stuck = LedgerError(f"ledger {self.url!r} did not answer within {limit_s:.1f} s", hint=_SLOW)
            if not work.is_given_up:
                work.is_given_up = True
                late += work.batch
                self._set_aside(late, _explain_commit(self._stuck) if work.is_committing else self._stuck)
            queued = self._drain()
            self._set_aside(queued, self._stuck)
            late += queued
            self._settled += len(late)
        settle_all(late)

    def require_reachable(self) -> None:
        """Refuse to read a server that cannot be reached: a reader would wait for it as long as the driver does.

        Raises:
            LedgerError: it could not be reached just now.
        """
        fault = self._stuck or self._unreachable
        if fault is not None and self._is_server:
            raise fault

    def _drain(self) -> list[Request]:
        """All that is queued; the mark of the end stays."""
        drained: list[Request] = []
        is_last = False
        with suppress(Empty):
            while True:
                request = self._queue.get_nowait()
                if request is None:
                    is_last = True
                else:
                    drained.append(request)
        if is_last:
            self._queue.put(None)
        return drained

    def _gather(self) -> tuple[list[Request], bool]:
        """All that waits; rows that nobody waits for are given a moment for company."""
        batch: list[Request] = []
        rows = 0
        has_hurry = False
        ready_at = self._committed_at + (GAP_S if self._is_busy else 0.0)
        while rows < MOST_ROWS:
            try:
                request = self._queue.get(block=not has_hurry, timeout=self._find_pause(batch))
            except Empty:
                break
            if request is None:
                return batch, True
            batch.append(request)
            rows += len(request.rows)
            if request.done is not None and not has_hurry:
                has_hurry = True
                time.sleep(max(ready_at - time.perf_counter(), 0.0))
        return batch, False

    def _find_pause(self, batch: Sequence[Request]) -> float | None:
        """How long to wait for the next request; None waits until there is one."""
        if batch:
            return PATIENCE_S
        if self.waiting:
            return RETRY_S
        return RECOVERY_S if self._is_down else None

    def _write(self, batch: Sequence[Request]) -> None:
        try:
            if self.waiting and not self._empty_outbox():
                with self._lock:
                    self._set_aside(batch, LedgerError(f"ledger {self.url!r} is behind its outbox"))
                return
            if any(request.is_probe for request in batch) and not any(request.rows for request in batch):
                self._probe()
            self._commit(batch)
        except LedgerError as error:
            with self._lock:
                if not self._is_given_up:
                    self._set_aside(batch, error)
        except BaseException as error:  # noqa: BLE001  # every waiting caller must hear of it
            self._refuse(batch, error)
        else:
            self.is_at_fault = self._is_down

    def _look(self) -> None:
        """Find out whether the database takes entries again."""
        with suppress(LedgerError):
            self._probe()
            self.is_at_fault = False

    def _write_kept(self) -> None:
        """Write some of the kept rows; those that are refused again and again, each alone, are dropped."""
        with self._lock:
            kept, self._kept = self._kept[:MOST_TOGETHER], self._kept[MOST_TOGETHER:]
        self._tries += 1
        is_last_try = self._tries >= MOST_TRIES
        for part in [[request] for request in kept] if is_last_try else [kept]:
            try:
                self._commit(part)
            except LedgerError:
                if not is_last_try:
                    with self._lock:
                        self._kept = kept + self._kept
                    return
                log.exception("%d entries could not be recorded", sum(len(each.rows) for each in part))
        self._tries = 0

    def _set_aside(self, batch: Sequence[Request], error: LedgerError) -> None:
        """Spool or refuse rows that are not settled yet; the lock is held."""
        if not self._spool(batch, error):
            self._refuse(batch, error)

    def _refuse(self, batch: Sequence[Request], error: BaseException) -> None:
        self.is_at_fault = True
        room = MOST_KEPT - sum(len(request.rows) for request in self._kept)
        may_keep = isinstance(error, LedgerError) and not isinstance(error, LedgerCorrupt)
        for request in batch:
            request.error = error
            if request.done is not None or not request.rows:
                continue
            if may_keep and len(request.rows) <= room:
                room -= len(request.rows)
                self._kept.append(Request(rows=request.rows, done=None))
            else:
                log.error("%d entries could not be recorded: %s", len(request.rows), error)

    def _spool(self, batch: Sequence[Request], error: LedgerError) -> bool:
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

    def _empty_outbox(self) -> bool:
        """Write what waits in the outbox; False where the ledger still does not take it."""
        assert self._outbox is not None
        try:
            rows = self._outbox.read()
            for start in range(0, len(rows), MOST_ROWS):
                self._commit([Request(rows=rows[start : start + MOST_ROWS], done=None)])
        except LedgerError:
            return False
        with self._lock:
            if len(self._outbox) > len(rows):
                return False  # more was put there meanwhile: what is in the ledger is known by its names
            self._outbox.clear()
        log.warning("%d entries of the outbox are in the ledger now", len(rows))
        return True

    def _probe(self) -> None:
        """Try the database; after a fault with a row, as a full disk takes a transaction that writes nothing."""
        with self._transaction() as cursor:
            if self.is_at_fault:
                cursor.execute("UPDATE alembic_version SET version_num = version_num")

    def _commit(self, batch: Sequence[Request]) -> None:
        if not any(request.rows for request in batch):
            return
        with self._transaction() as cursor:
            last, known = self._look_up(cursor, [row.id for request in batch for row in request.rows])
            fresh = take_fresh(batch, known)
            if not fresh:
                return
            self._insert_tasks(cursor, fresh)
            previous, at = last, self._clock.now()
            values: list[tuple[object, ...]] = []
            for row in fresh:
                previous = chain_digest(previous, row, at=at)
                values.append((row.id, row.kind, at, row.run, row.decision, row.task, row.dataset, row.body, previous))
            insert_rows(cursor, self._sql.entries, values)
            self._add_spend(cursor, fresh, at)

    @contextmanager
    def _transaction(self) -> Iterator[DBAPICursor]:
        """One transaction on the writer's own connection, which is dropped where it fails."""
        driver = self._engine.dialect.loaded_dbapi
        patience_ms = round(1000 * (MOMENT_S if self._is_down else self._patience_s))
        try:
            if self._connection is None:
                with translated_faults(self.url):
                    self._connection = self._engine.raw_connection()
            cursor = self._connection.cursor()
            for statement in self._sql.begin(patience_ms):
                cursor.execute(statement)
            yield cursor
            self._require_wanted()
            cursor.execute("COMMIT")
            cursor.close()
        except driver.Error as error:
            fault = explain_fault(str(error), self.url)
            self._fail(fault, is_lost=isinstance(error, driver.OperationalError))
            raise fault from error
        except LedgerError as error:
            self._fail(error, is_lost=True)
            raise
        except BaseException:
            self._drop_connection()
            raise
        self._is_down, self._unreachable = False, None

    def _fail(self, fault: LedgerError, *, is_lost: bool) -> None:
        self._drop_connection()
        self._is_down = True
        self._unreachable = fault if is_lost and not is_lock(fault) else None

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

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.rollback()
            with suppress(Exception):
                connection.invalidate()

    def _look_up(self, cursor: DBAPICursor, names: Sequence[str]) -> tuple[str, set[str]]:
        """Digest of the last entry, and which of these names are recorded already."""
        last, known = GENESIS, set()
        for start in range(0, len(names), MOST_NAMES):
            part = names[start : start + MOST_NAMES]
            cursor.execute(self._sql.look_up(len(part)), part)
            for is_last, found in cursor.fetchall():
                if is_last:
                    last = found
                else:
                    known.add(found)
        return last, known

    def _add_spend(self, cursor: DBAPICursor, rows: Sequence[Row], at: float) -> None:
        """What keys have spent, in the transaction of the runs that cost it: neither lost nor counted twice."""
        sums: dict[tuple[str, str], tuple[float, int, int, int]] = {}
        paid = [row for row in rows if row.key is not None]
        for row in paid:
            for period in find_periods(at):
                cost_usd, tokens, requests, unknown = sums.get((str(row.key), period), (0.0, 0, 0, 0))
                more = (cost_usd + row.cost_usd, tokens + row.tokens, requests + 1, unknown + row.has_unknown_cost)
                sums[str(row.key), period] = more
        if sums:
            insert_rows(cursor, self._sql.spend, [(*place, *spent) for place, spent in sorted(sums.items())])
        for start in range(0, len(paid), MOST_NAMES):
            part = [row.run for row in paid[start : start + MOST_NAMES]]
            cursor.execute(self._sql.release(len(part)), part)

    def _insert_tasks(self, cursor: DBAPICursor, rows: Sequence[Row]) -> None:
        bodies = {row.task: row.task_body for row in rows if row.task is not None and row.task_body is not None}
        if bodies:
            insert_rows(cursor, self._sql.tasks, list(bodies.items()))


def _explain_commit(error: LedgerError) -> LedgerError:
    """What is told where the COMMIT itself is under way: nobody can know yet how it ends."""
    return LedgerError(f"{error.message} to commit: it may be recorded late, and then once", hint=error.hint)
