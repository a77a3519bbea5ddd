"""Writer: one thread that commits all waiting rows together, chained to all before them."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeAlias

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

from ripieno.domain import Clock
from ripieno.errors import LedgerCorrupt, LedgerError
from ripieno.ledger.codec import GENESIS, Row, chain_digest
from ripieno.ledger.database import explain_fault, translated_faults
from ripieno.ledger.outbox import Outbox

log = logging.getLogger(__name__)

MOST_ROWS = 2000
"""Rows of one group commit: more would make the first one wait."""
MOST_NAMES = 500
"""Values of one IN list."""
PATIENCE_S = 0.05
"""How long a row that nobody waits for may wait for company: the next decision's commit takes it along."""
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
            done.result()

    def close(self) -> None:
        """Write what waits, then end."""
        self._queue.put(None)
        self._thread.join()

    def _write_forever(self) -> None:
        is_last = False
        if self._outbox is not None and len(self._outbox):
            self._empty_outbox()
        while not is_last:
            batch, is_last = self._gather()
            if batch:
                self._write(batch)
                self._settled += len(batch)
                _settle_all(batch)
            elif self._outbox is not None and len(self._outbox):
                self._empty_outbox()
        self._drop_connection()

    def _gather(self) -> tuple[list[Request], bool]:
        """All that waits; rows that nobody waits for are given a moment for company."""
        batch: list[Request] = []
        rows = 0
        has_hurry = False
        while rows < MOST_ROWS:
            try:
                request = self._queue.get(block=not has_hurry, timeout=self._patience(batch))
            except Empty:
                break
            if request is None:
                return batch, True
            batch.append(request)
            rows += len(request.rows)
            has_hurry = has_hurry or request.done is not None
        return batch, False

    def _patience(self, batch: Sequence[Request]) -> float | None:
        if batch:
            return PATIENCE_S
        return RETRY_S if self.waiting else None

    def _write(self, batch: Sequence[Request]) -> None:
        if self._outbox is not None and len(self._outbox) and not self._empty_outbox():
            behind = LedgerError(f"ledger {self.url!r} is behind its outbox")
            if not self._spool(batch, behind):
                _refuse(batch, behind)
            return
        try:
            self._commit(batch)
        except LedgerError as error:
            if not self._spool(batch, error):
                _refuse(batch, error)
        except BaseException as error:  # noqa: BLE001  # every waiting caller must hear of it
            _refuse(batch, error)

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
        for request in batch:
            request.count = len(request.rows)
        return True

    def _empty_outbox(self) -> bool:
        """Write what waits in the outbox; False where the ledger still does not take it."""
        assert self._outbox is not None
        rows = self._outbox.read()
        try:
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
            fresh = self._find_fresh(cursor, batch)
            if not fresh:
                return
            self._insert_tasks(cursor, fresh)
            cursor.execute(self._sql.last)
            last = cursor.fetchone()
            previous, at, values = last[0] if last else GENESIS, self._clock.now(), []
            for row in fresh:
                previous = chain_digest(previous, row, at=at)
                values.append((row.id, row.kind, at, row.run, row.decision, row.task, row.dataset, row.body, previous))
            cursor.executemany(self._sql.insert_entry, values)

    @contextmanager
    def _transaction(self) -> Iterator[DBAPICursor]:
        """One transaction on the writer's own connection, which is dropped where it fails."""
        driver = self._engine.dialect.loaded_dbapi
        try:
            if self._connection is None:
                with translated_faults(self.url):
                    self._connection = self._engine.raw_connection()
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

    def _find_fresh(self, cursor: DBAPICursor, batch: Sequence[Request]) -> list[Row]:
        """Rows of a whole batch that are not recorded yet; each request learns how many of its own."""
        known: set[str] = set()
        names = [row.id for request in batch for row in request.rows]
        for start in range(0, len(names), MOST_NAMES):
            part = names[start : start + MOST_NAMES]
            cursor.execute(self._sql.find_entries(len(part)), part)
            known.update(row[0] for row in cursor.fetchall())
        fresh: list[Row] = []
        for request in batch:
            for row in request.rows:
                if row.id not in known:
                    known.add(row.id)
                    fresh.append(row)
                    request.count += 1
        return fresh

    def _insert_tasks(self, cursor: DBAPICursor, rows: Sequence[Row]) -> None:
        bodies = {row.task: row.task_body for row in rows if row.task is not None and row.task_body is not None}
        if bodies:
            cursor.executemany(self._sql.insert_task, list(bodies.items()))


class _Statements:
    """The few statements of an append, in the driver's own form: this is the hot path."""

    def __init__(self, engine: Engine) -> None:
        is_sqlite = engine.dialect.name == "sqlite"
        self._mark = "?" if is_sqlite else "%s"
        # EXCLUSIVE leaves readers alone, and makes appends of several replicas one chain
        self.begin = ("BEGIN IMMEDIATE",) if is_sqlite else ("LOCK TABLE entries IN EXCLUSIVE MODE",)
        self.last = "SELECT digest FROM entries ORDER BY seq DESC LIMIT 1"
        names = ("id", "kind", "at", "run", "decision", "task", "dataset", "body", "digest")
        self.insert_entry = f"INSERT INTO entries ({', '.join(names)}) VALUES ({self._marks(len(names))})"  # noqa: S608
        self.insert_task = f"INSERT INTO tasks (digest, body) VALUES ({self._marks(2)}) ON CONFLICT (digest) DO NOTHING"  # noqa: S608

    def find_entries(self, count: int) -> str:
        return f"SELECT id FROM entries WHERE id IN ({self._marks(count)})"  # noqa: S608  # marks alone

    def _marks(self, count: int) -> str:
        return ", ".join([self._mark] * count)


def _refuse(batch: Sequence[Request], error: BaseException) -> None:
    for request in batch:
        request.error = error
        if request.done is None:
            log.error("%d entries could not be recorded: %s", len(request.rows), error)


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
