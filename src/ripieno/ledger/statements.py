"""Statements: what an append asks of the database, in the driver's own form, as this is the hot path."""

from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor

MOST_INSERTED = 100
"""Rows of one statement."""


class Insertion:
    """An INSERT of many rows at once: one step of the database, while which other threads run.

    Each step of a statement gives the interpreter away, and a busy event loop gives it back late.
    """

    def __init__(self, table: str, names: Sequence[str], *, mark: str, ends: str = "") -> None:
        self.row = f"({', '.join([mark] * len(names))})"
        self.begins = f"INSERT INTO {table} ({', '.join(names)}) VALUES "  # noqa: S608  # names of our own
        self.ends = ends

    def text(self, count: int) -> str:
        """The statement for so many rows."""
        return self.begins + ", ".join([self.row] * count) + self.ends


_LAST = "SELECT 1, digest FROM (SELECT digest FROM entries ORDER BY seq DESC LIMIT 1) AS last"


class Statements:
    """The few statements of an append, in the driver's own form: this is the hot path."""

    def __init__(self, engine: Engine) -> None:
        self._is_sqlite = is_sqlite = engine.dialect.name == "sqlite"
        self._mark = mark = "?" if is_sqlite else "%s"
        names = ("id", "kind", "at", "run", "decision", "task", "dataset", "body", "digest")
        self.entries = Insertion("entries", names, mark=mark)
        self.tasks = Insertion("tasks", ("digest", "body"), mark=mark, ends=" ON CONFLICT (digest) DO NOTHING")
        self.spend = Insertion(
            "spend",
            ("key", "period", "cost_usd", "tokens", "requests", "unknown"),
            mark=mark,
            ends=" ON CONFLICT (key, period) DO UPDATE SET cost_usd = spend.cost_usd + excluded.cost_usd, "
            "tokens = spend.tokens + excluded.tokens, requests = spend.requests + excluded.requests, "
            "unknown = spend.unknown + excluded.unknown",
        )

    def begin(self, patience_ms: int) -> tuple[str, ...]:
        """What begins a transaction that waits no longer than so for other writers."""
        if self._is_sqlite:
            return (f"PRAGMA busy_timeout={patience_ms}", "BEGIN IMMEDIATE")
        # EXCLUSIVE leaves readers alone, and makes appends of several replicas one chain
        return (f"SET LOCAL lock_timeout = {patience_ms}; LOCK TABLE entries IN EXCLUSIVE MODE",)

    def look_up(self, count: int) -> str:
        """What finds the digest of the last entry, and which of so many names are recorded."""
        marks = ", ".join([self._mark] * count)
        return f"{_LAST} UNION ALL SELECT 0, id FROM entries WHERE id IN ({marks})"  # noqa: S608  # marks alone

    def release(self, count: int) -> str:
        """Remove what was held back for these runs: what they have cost is counted."""
        return f"DELETE FROM holds WHERE run IN ({', '.join([self._mark] * count)})"  # noqa: S608  # marks alone


def insert_rows(cursor: DBAPICursor, insertion: Insertion, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows, a bounded number with each statement."""
    for start in range(0, len(rows), MOST_INSERTED):
        part = rows[start : start + MOST_INSERTED]
        cursor.execute(insertion.text(len(part)), [value for row in part for value in row])
