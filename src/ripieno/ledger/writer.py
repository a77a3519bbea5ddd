"""Writer: one thread that commits all waiting rows together, chained to all before them."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeAlias

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

from ripieno.domain import Clock, find_periods
from ripieno.errors import LedgerCorrupt, LedgerError
from ripieno.ledger.codec import GENESIS, Row, chain_digest
from ripieno.ledger.database import explain_fault, translated_faults
from ripieno.ledger.outbox import Outbox

log = logging.getLogger(__name__)

MOST_ROWS = 2000
"""Rows of one group commit: more would make the first one wait."""
MOST_NAMES = 500
"""Values of one IN list."""
MOST_INSERTED = 100
"""Rows of one statement."""
PATIENCE_S = 0.05
"""How long a row that nobody waits for may wait for company: the next decision's commit takes it along."""
GAP_S = 0.002
"""Between two commits under load: what comes meanwhile shares one, and a worker's answer takes longer anyway."""
SPOOL_BUSY_MS = 1000
"""How long a locked database is waited for where there is an outbox."""
RETRY_S = 1.0
"""Between two tries to empty the outbox while nothing is written."""

Waiting: TypeAlias = Future[int] | asyncio.Future[int]


@dataclass(slots=True)
class Request:
    """Rows that wait to be written, and who waits for them: a thread, a task of an event loop, or nobody."""

    rows: Sequence[Row]
    done: Waiting | None
    count: int = 0
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell who waits; a caller that has left is not told, its rows are written all the same."""
        if self.done is None or self.done.done():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.count)


class Writer:
    """Owns the only connection that appends.

    Args:
        engine: the opened database.
        url: its name in errors.
        clock: when entries are recorded.
        outbox: where rows wait while the database cannot take them; without, they are refused.
    """

    def __init__(self, engine: Engine, *, url: str, clock: Clock, outbox: Outbox | None = None) -> None:
        self.url = url
        self._engine = engine
        self._clock = clock
        self._outbox = outbox
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._submitted = 0
        self._settled = 0
        self._committed_at = 0.0
        self._is_busy = False
        """Whether the latest commit was waited for by more than one."""
        self.is_at_fault = False
        """Whether the latest commit was refused."""
        self._sql = _Statements(engine)
        self._connection: DBAPIConnection | None = None
        self._thread = threading.Thread(target=self._write_forever, name="ripieno-ledger", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows in the outbox."""
        return len(self._outbox) if self._outbox is not None else 0

    def submit(self, rows: Sequence[Row], waiting: Waiting | None) -> None:
        """Take rows to be written, all or none; a failure that nobody waits for is logged."""
        self._submitted += 1
        self._queue.put(Request(rows=rows, done=waiting))

    def wait(self) -> None:
        """Return when all that was submitted before is settled, so that a reader finds what it wrote."""
        if self._settled < self._submitted and threading.current_thread() is not self._thread:
            done: Future[int] = Future()
            self.submit((), done)
            done.exception()  # what was refused was told to who submitted it

    def close(self) -> None:
        """Write what waits, then end."""
        self._queue.put(None)
        self._thread.join()

    def _write_forever(self) -> None:
        is_last = False
        if self.waiting:
            self._empty_outbox()
        while not is_last:
            batch, is_last = self._gather()
            if batch:
                self._write(batch)
                self._committed_at = time.perf_counter()
                self._is_busy = sum(request.done is not None for request in batch) > 1
                self._settled += len(batch)
                _settle_all(batch)
            elif self.waiting:
                self._empty_outbox()
        self._drop_connection()

    def _gather(self) -> tuple[list[Request], bool]:
        """All that waits; rows that nobody waits for are given a moment for company."""
        batch: list[Request] = []
        rows = 0
        has_hurry = False
        ready_at = self._committed_at + (GAP_S if self._is_busy else 0.0)
        while rows < MOST_ROWS:
            try:
                request = self._queue.get(block=not has_hurry, timeout=self._patience(batch))
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

    def _patience(self, batch: Sequence[Request]) -> float | None:
        if batch:
            return PATIENCE_S
        return RETRY_S if self.waiting else None

    def _write(self, batch: Sequence[Request]) -> None:
        try:
            if self.waiting and not self._empty_outbox():
                self._set_aside(batch, LedgerError(f"ledger {self.url!r} is behind its outbox"))
                return
            self._commit(batch)
        except LedgerError as error:
            self._set_aside(batch, error)
        except BaseException as error:  # noqa: BLE001  # every waiting caller must hear of it
            self._refuse(batch, error)
        else:
            self.is_at_fault = False

    def _set_aside(self, batch: Sequence[Request], error: LedgerError) -> None:
        if not self._spool(batch, error):
            self._refuse(batch, error)

    def _refuse(self, batch: Sequence[Request], error: BaseException) -> None:
        self.is_at_fault = True
        for request in batch:
            request.error = error
            if request.done is None:
                log.error("%d entries could not be recorded: %s", len(request.rows), error)

    def _spool(self, batch: Sequence[Request], error: LedgerError) -> bool:
        """Keep the rows aside, durably; False where there is no place."""
        if self._outbox is None or isinstance(error, LedgerCorrupt):
            return False
        try:
            self._outbox.put([row for request in batch for row in request.rows])
        except (LedgerError, OSError):
            log.exception("neither the ledger nor its outbox takes entries")
            return False
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
        self._outbox.clear()
        log.warning("%d entries of the outbox are in the ledger now", len(rows))
        return True

    def _commit(self, batch: Sequence[Request]) -> None:
        if not any(request.rows for request in batch):
            return
        with self._transaction() as cursor:
            last, known = self._look_up(cursor, [row.id for request in batch for row in request.rows])
            fresh = _take_fresh(batch, known)
            if not fresh:
                return
            self._insert_tasks(cursor, fresh)
            previous, at = last, self._clock.now()
            values: list[tuple[object, ...]] = []
            for row in fresh:
                previous = chain_digest(previous, row, at=at)
                values.append((row.id, row.kind, at, row.run, row.decision, row.task, row.dataset, row.body, previous))
            _insert(cursor, self._sql.entries, values)
            self._add_spend(cursor, fresh, at)

    @contextmanager
    def _transaction(self) -> Iterator[DBAPICursor]:
        """One transaction on the writer's own connection, which is dropped where it fails."""
        driver = self._engine.dialect.loaded_dbapi
        try:
            if self._connection is None:
                with translated_faults(self.url):
                    self._connection = self._engine.raw_connection()
                if self._outbox is not None and self._engine.dialect.name == "sqlite":
                    self._connection.cursor().execute(f"PRAGMA busy_timeout={SPOOL_BUSY_MS}")
            assert self._connection is not None
            cursor = self._connection.cursor()
            for statement in self._sql.begin:
                cursor.execute(statement)
            yield cursor
            cursor.execute("COMMIT")
            cursor.close()
        except driver.Error as error:
            self._drop_connection()
            raise explain_fault(str(error), self.url) from error
        except BaseException:
            self._drop_connection()
            raise

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.rollback()
            with suppress(Exception):
                connection.close()

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
            _insert(cursor, self._sql.spend, [(*place, *spent) for place, spent in sorted(sums.items())])
        for start in range(0, len(paid), MOST_NAMES):
            part = [row.run for row in paid[start : start + MOST_NAMES]]
            cursor.execute(self._sql.release(len(part)), part)

    def _insert_tasks(self, cursor: DBAPICursor, rows: Sequence[Row]) -> None:
        bodies = {row.task: row.task_body for row in rows if row.task is not None and row.task_body is not None}
        if bodies:
            _insert(cursor, self._sql.tasks, list(bodies.items()))


class _Insertion:
    """An INSERT of many rows at once: one step of the database, while which other threads run.

    Each step of a statement gives the interpreter away, and a busy event loop gives it back late.
    """

    def __init__(self, table: str, names: Sequence[str], *, mark: str, ends: str = "") -> None:
        self.row = f"({', '.join([mark] * len(names))})"
        self.begins = f"INSERT INTO {table} ({', '.join(names)}) VALUES "  # noqa: S608  # names of our own
        self.ends = ends

    def text(self, count: int) -> str:
        return self.begins + ", ".join([self.row] * count) + self.ends


_LAST = "SELECT 1, digest FROM (SELECT digest FROM entries ORDER BY seq DESC LIMIT 1) AS last"


class _Statements:
    """The few statements of an append, in the driver's own form: this is the hot path."""

    def __init__(self, engine: Engine) -> None:
        is_sqlite = engine.dialect.name == "sqlite"
        self._mark = mark = "?" if is_sqlite else "%s"
        # EXCLUSIVE leaves readers alone, and makes appends of several replicas one chain
        self.begin = ("BEGIN IMMEDIATE",) if is_sqlite else ("LOCK TABLE entries IN EXCLUSIVE MODE",)
        names = ("id", "kind", "at", "run", "decision", "task", "dataset", "body", "digest")
        self.entries = _Insertion("entries", names, mark=mark)
        self.tasks = _Insertion("tasks", ("digest", "body"), mark=mark, ends=" ON CONFLICT (digest) DO NOTHING")
        self.spend = _Insertion(
            "spend",
            ("key", "period", "cost_usd", "tokens", "requests", "unknown"),
            mark=mark,
            ends=" ON CONFLICT (key, period) DO UPDATE SET cost_usd = spend.cost_usd + excluded.cost_usd, "
            "tokens = spend.tokens + excluded.tokens, requests = spend.requests + excluded.requests, "
            "unknown = spend.unknown + excluded.unknown",
        )

    def look_up(self, count: int) -> str:
        marks = ", ".join([self._mark] * count)
        return f"{_LAST} UNION ALL SELECT 0, id FROM entries WHERE id IN ({marks})"  # noqa: S608  # marks alone

    def release(self, count: int) -> str:
        """Remove what was held back for these runs: what they have cost is counted."""
        return f"DELETE FROM holds WHERE run IN ({', '.join([self._mark] * count)})"  # noqa: S608  # marks alone


def _insert(cursor: DBAPICursor, insertion: _Insertion, rows: Sequence[Sequence[object]]) -> None:
    for start in range(0, len(rows), MOST_INSERTED):
        part = rows[start : start + MOST_INSERTED]
        cursor.execute(insertion.text(len(part)), [value for row in part for value in row])


def _take_fresh(batch: Sequence[Request], known: set[str]) -> list[Row]:
    """Rows of a whole batch that are not recorded yet; each request learns how many of its own."""
    fresh: list[Row] = []
    for request in batch:
        for row in request.rows:
            if row.id not in known:
                known.add(row.id)
                fresh.append(row)
                request.count += 1
    return fresh


def _settle_all(batch: Sequence[Request]) -> None:
    """Wake every waiting thread, and each event loop once for all its tasks."""
    loops: dict[asyncio.AbstractEventLoop, list[Request]] = {}
    for request in batch:
        if isinstance(request.done, asyncio.Future):
            loops.setdefault(request.done.get_loop(), []).append(request)
        else:
            request.settle()
    for loop, requests in loops.items():
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(_settle_requests, requests)


def _settle_requests(requests: Sequence[Request]) -> None:
    for request in requests:
        request.settle()
