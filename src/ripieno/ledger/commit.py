"""Commit: rows into the database in one transaction, each chained to all before it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection

from ripieno.domain import Clock, find_periods
from ripieno.errors import LedgerError
from ripieno.ledger.batch import WriteRequest, take_fresh
from ripieno.ledger.codec import GENESIS, EntryRow, chain_digest
from ripieno.ledger.database import explain_fault, is_lock, translated_faults
from ripieno.ledger.statements import Statements, insert_rows

MOST_NAMES = 500
"""Values of one IN list."""
MOMENT_S = 0.1
"""How long a database is waited for that refused the latest commit: other writers' commits take no longer."""


class Committer:
    """Owns the only connection that appends.

    Args:
        engine: the opened database.
        url: its name in errors.
        clock: when entries are recorded.
        patience_s: how long rows wait for a database that another process holds, in seconds.
        require_wanted: called right before each COMMIT; raises where the rows were refused meanwhile.
    """

    def __init__(
        self, engine: Engine, *, url: str, clock: Clock, patience_s: float, require_wanted: Callable[[], None]
    ) -> None:
        self.url = url
        self.fault: LedgerError | None = None
        """Why the latest transaction failed, whatever became of its rows; None where it worked."""
        self.unreachable: LedgerError | None = None
        """Why the database could not be reached at the latest try; None where it answers, and is locked."""
        self._engine = engine
        self._clock = clock
        self._patience_s = patience_s
        self._require_wanted = require_wanted
        self._sql = Statements(engine)
        self._connection: PoolProxiedConnection | None = None

    def commit(self, batch: Sequence[WriteRequest]) -> None:
        """Write the rows that are not recorded yet; each request learns how many of its own.

        Raises:
            LedgerError: the database refuses; nothing was written.
        """
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

    def probe(self, *, writes: bool) -> None:
        """Try the database.

        Args:
            writes: whether a row is touched: a full disk takes a transaction that writes nothing.

        Raises:
            LedgerError: the database refuses.
        """
        with self._transaction() as cursor:
            if writes:
                cursor.execute("UPDATE alembic_version SET version_num = version_num")

    def drop_connection(self) -> None:
        """Give the connection up, with what was not committed; the next transaction opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.rollback()
            with suppress(Exception):
                connection.invalidate()

    @contextmanager
    def _transaction(self) -> Iterator[DBAPICursor]:
        """One transaction on the writer's own connection, which is dropped where it fails."""
        driver = self._engine.dialect.loaded_dbapi
        patience_ms = round(1000 * (MOMENT_S if self.fault is not None else self._patience_s))
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
            self.drop_connection()
            raise
        self.fault = self.unreachable = None

    def _fail(self, fault: LedgerError, *, is_lost: bool) -> None:
        self.drop_connection()
        self.fault = fault
        self.unreachable = fault if is_lost and not is_lock(fault) else None

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

    def _add_spend(self, cursor: DBAPICursor, rows: Sequence[EntryRow], at: float) -> None:
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

    def _insert_tasks(self, cursor: DBAPICursor, rows: Sequence[EntryRow]) -> None:
        bodies = {row.task: row.task_body for row in rows if row.task is not None and row.task_body is not None}
        if bodies:
            insert_rows(cursor, self._sql.tasks, list(bodies.items()))
