"""Reading: connections that read the ledger's database, and rows turned into entries."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Select, literal_column
from sqlalchemy import Row as SqlRow

from ripieno.domain import Task
from ripieno.errors import LedgerCorrupt
from ripieno.ledger.codec import decode_entry, load_task
from ripieno.ledger.database import translated_faults
from ripieno.ledger.found import Stored
from ripieno.ledger.writer import Writer

_Kind = TypeVar("_Kind")

MOST_NAMES = 500
"""Ids of one query."""

DECIDED: ColumnElement[str] = literal_column("'decided'")
JUDGED: ColumnElement[str] = literal_column("'judged'")
CLAIMED: ColumnElement[str] = literal_column("'claimed'")
"""Kinds as a part of the statement: with a parameter, the database would not use the index of the kind."""


class Reader:
    """Runs queries that see everything this process submitted before."""

    def __init__(self, engine: Engine, writer: Writer, *, url: str) -> None:
        self.engine = engine
        self.url = url
        self._reading = engine.execution_options(reads_only=True)
        self._writer = writer

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a connection that reads.

        Raises:
            LedgerError: the database cannot be read.
        """
        self._writer.wait()
        self._writer.require_reachable()
        with translated_faults(self.url), self._reading.connect() as connection:
            yield connection

    def rows(self, query: Select[Any]) -> Sequence[SqlRow[Any]]:
        """Return all rows of a query."""
        with self.connect() as connection:
            return connection.execute(query).all()

    def stream(self, query: Select[Any]) -> Iterator[SqlRow[Any]]:
        """Yield the rows of a query, and hold few of them in memory."""
        with self.connect() as connection:
            yield from connection.execute(query).yield_per(1000)

    def scalar(self, query: Select[Any]) -> Any:
        """Return the first value of a query; None if it finds nothing."""
        with self.connect() as connection:
            return connection.execute(query).scalar()


def read_as(kind: type[_Kind], row: SqlRow[Any], *, task_body: str | None = None) -> _Kind:
    """Turn a row into an entry of a known kind."""
    entry = decode_entry(kind.__name__.lower(), row.body, entry=row.id, task_body=task_body)
    assert isinstance(entry, kind)
    return entry


def store(row: SqlRow[Any], *, task_body: str | None = None) -> Stored:
    """Turn a row into an entry with its place."""
    entry = decode_entry(row.kind, row.body, entry=row.id, task_body=task_body)
    return Stored(seq=row.seq, at=row.at, entry=entry)


def decode_task(digest: str, body: str) -> Task:
    """Turn JSON into a task.

    Raises:
        LedgerCorrupt: it is not a task.
    """
    try:
        return load_task(body)
    except msgspec.MsgspecError as error:
        raise LedgerCorrupt(f"task {digest!r} cannot be read: {error}", entry=digest) from error
