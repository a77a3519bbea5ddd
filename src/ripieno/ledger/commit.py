"""Commit: write rows in one transaction, each chained to all before it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection

from ripieno.domain import Clock, find_periods
from ripieno.errors import LedgerCorrupt, LedgerError
from ripieno.ledger.batch import WriteRequest, find_new
from ripieno.ledger.codec import GENESIS, EntryRow, chain_digest
from ripieno.ledger.damage import Damage
from ripieno.ledger.database import explain_fault, is_lock, translated_faults
from ripieno.ledger.statements import Statements

MOST_NAMES = 500
"""Values of one IN list."""
MOMENT_S = 0.1
"""Patience after a refused commit. Commits of other writers take less."""
MOST_REFUSED = 100
"""Refused rows that a check of a damaged database writes again."""


class _Undone(Exception):
    """Ends the transaction of a check, whose rows are not kept."""


class Committer:
    """Owns the only connection that appends.

    It calls `require_wanted` before each COMMIT, which raises if the rows were refused in the meantime.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        url: str,
        clock: Clock,
        damage: Damage,
        patience_s: float,
        require_wanted: Callable[[], None],
    ) -> None:
        self.url = url
        self.fault: LedgerError | None = None
        """Error of the latest transaction; None if it succeeded."""
        self.unreachable: LedgerError | None = None
        """Error of the latest transaction, if the database did not answer; None if it is only locked."""
        self._damage = damage
        self._refused: Sequence[EntryRow] = ()
        """Rows of the first commit that the damage refused."""
        self._engine = engine
        self._clock = clock
        self._patience_s = patience_s
        self._require_wanted = require_wanted
        self._sql = Statements(engine)
        self._connection: PoolProxiedConnection | None = None

    def commit(self, batch: Sequence[WriteRequest]) -> None:
        """Write the rows that are not recorded, and set each request's count of them.

        Raises:
            LedgerError: the database refuses them, and nothing was written.
        """
        if not any(request.rows for request in batch):
            return
        self._damage.require_none()
        try:
            with self._transaction() as cursor:
                self._write(cursor, batch)
        except LedgerCorrupt:
            self._refused = [row for request in batch for row in request.rows][:MOST_REFUSED]
            raise

    def probe(self, *, writes: bool) -> None:
        """Test the database.

        Args:
            writes: True changes a row, because a full disk accepts a transaction that writes nothing.

        Raises:
            LedgerError: the database refuses.
        """
        self._damage.require_none()
        with self._transaction() as cursor:
            if writes:
                cursor.execute("UPDATE alembic_version SET version_num = version_num")

    def check(self) -> None:
        """Check a damaged database: read all of it, and write the refused rows without keeping them.

        Raises:
            LedgerError: the database is still damaged, or cannot be read.
        """
        self.drop_connection()
        with self._damage.checking(), suppress(_Undone), self._transaction() as cursor:
            self._write(cursor, [WriteRequest(rows=self._refused, done=None)])
            raise _Undone
        self._refused = ()
        self.probe(writes=True)

    def _write(self, cursor: DBAPICursor, batch: Sequence[WriteRequest]) -> None:
        """Write the rows of a batch that are not recorded, in the current transaction."""
        last, known = self._look_up(cursor, [row.id for request in batch for row in request.rows])
        fresh = find_new(batch, known)
        if not fresh:
            return
        self._insert_tasks(cursor, fresh)
        previous, at = last, self._clock.now()
        values: list[tuple[object, ...]] = []
        for row in fresh:
            previous = chain_digest(previous, row, at=at)
            values.append((row.id, row.kind, at, row.run, row.decision, row.task, row.dataset, row.body, previous))
        self._sql.insert(cursor, "entries", values)
        self._add_spend(cursor, fresh, at)

    def drop_connection(self) -> None:
        """Roll back and drop the connection. The next transaction opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.rollback()
            with suppress(Exception):
                connection.invalidate()

    @contextmanager
    def _transaction(self) -> Iterator[DBAPICursor]:
        """Run one transaction on the writer's own connection, which is dropped if it fails."""
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
        self.fault, self.unreachable = self._damage.found, None

    def _fail(self, fault: LedgerError, *, is_lost: bool) -> None:
        self.drop_connection()
        self.fault = fault
        self._damage.note(fault)
        self.unreachable = fault if is_lost and not is_lock(fault) else None

    def _look_up(self, cursor: DBAPICursor, names: Sequence[str]) -> tuple[str, set[str]]:
        """Return the digest of the last entry, and those of the names that are recorded."""
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
        """Add the cost of runs to the spending of their keys, in the same transaction, and release their holds."""
        sums: dict[tuple[str, str], tuple[float, int, int, int]] = {}
        paid = [row for row in rows if row.key is not None]
        for row in paid:
            for period in find_periods(at):
                cost_usd, tokens, requests, unknown = sums.get((str(row.key), period), (0.0, 0, 0, 0))
                more = (cost_usd + row.cost_usd, tokens + row.tokens, requests + 1, unknown + row.has_unknown_cost)
                sums[str(row.key), period] = more
        if sums:
            self._sql.insert(cursor, "spend", [(*place, *spent) for place, spent in sorted(sums.items())])
        for start in range(0, len(paid), MOST_NAMES):
            part = [row.run for row in paid[start : start + MOST_NAMES]]
            cursor.execute(self._sql.release(len(part)), part)

    def _insert_tasks(self, cursor: DBAPICursor, rows: Sequence[EntryRow]) -> None:
        bodies = {row.task: row.task_body for row in rows if row.task is not None and row.task_body is not None}
        if bodies:
            self._sql.insert(cursor, "tasks", list(bodies.items()))
