"""Statements: the SQL of an append, in the driver's own form for speed."""

from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor

MOST_INSERTED = 100
"""Rows of one statement."""
_LAST = "SELECT 1, digest FROM (SELECT digest FROM entries ORDER BY seq DESC LIMIT 1) AS last"
_INSERTED = {
    "entries": ("id", "kind", "at", "run", "decision", "task", "dataset", "body", "digest"),
    "tasks": ("digest", "body"),
    "spend": ("key", "period", "cost_usd", "tokens", "requests", "unknown"),
}
_CONFLICTS = {
    "tasks": " ON CONFLICT (digest) DO NOTHING",
    "spend": " ON CONFLICT (key, period) DO UPDATE SET cost_usd = spend.cost_usd + excluded.cost_usd, "
    "tokens = spend.tokens + excluded.tokens, requests = spend.requests + excluded.requests, "
    "unknown = spend.unknown + excluded.unknown",
}


class Statements:
    """The statements of an append."""

    def __init__(self, engine: Engine) -> None:
        self._is_sqlite = is_sqlite = engine.dialect.name == "sqlite"
        self._mark = "?" if is_sqlite else "%s"

    def insert(self, cursor: DBAPICursor, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Insert rows, many with each statement.

        Each step of a statement releases the interpreter, and a busy event loop returns it late.
        """
        names = _INSERTED[table]
        marks = f"({', '.join([self._mark] * len(names))})"
        begins = f"INSERT INTO {table} ({', '.join(names)}) VALUES "  # noqa: S608  # names of our own
        for start in range(0, len(rows), MOST_INSERTED):
            part = rows[start : start + MOST_INSERTED]
            statement = begins + ", ".join([marks] * len(part)) + _CONFLICTS.get(table, "")
            cursor.execute(statement, [value for row in part for value in row])

    def begin(self, patience_ms: int) -> tuple[str, ...]:
        """Return the statements that begin a transaction, which waits at most so long for other writers."""
        if self._is_sqlite:
            return (f"PRAGMA busy_timeout={patience_ms}", "BEGIN IMMEDIATE")
        # EXCLUSIVE does not block readers, and chains the appends of several replicas
        return (f"SET LOCAL lock_timeout = {patience_ms}; LOCK TABLE entries IN EXCLUSIVE MODE",)

    def look_up(self, count: int) -> str:
        """Return the query of the last entry's digest, and of those of `count` names that are recorded."""
        marks = ", ".join([self._mark] * count)
        return f"{_LAST} UNION ALL SELECT 0, id FROM entries WHERE id IN ({marks})"  # noqa: S608  # marks alone

    def release(self, count: int) -> str:
        """Return the statement that removes the holds of `count` runs."""
        return f"DELETE FROM holds WHERE run IN ({', '.join([self._mark] * count)})"  # noqa: S608  # marks alone
