"""Reading: connections to the ledger's database for those that read it, and rows made entries again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, literal_column
from sqlalchemy import Row as SqlRow

from ripieno.domain import Task
from ripieno.errors import LedgerCorrupt
from ripieno.ledger.codec import decode_entry, load_task
from ripieno.ledger.database import translated_faults
from ripieno.ledger.found import Stored
from ripieno.ledger.writer import Writer

MOST_NAMES = 500
"""Ids of one query."""

DECIDED: ColumnElement[str] = literal_column("'decided'")
JUDGED: ColumnElement[str] = literal_column("'judged'")
CLAIMED: ColumnElement[str] = literal_column("'claimed'")
"""Kinds as part of the statement itself: a parameter would not be seen to fit the index of the kind."""


class Reader:
    """Opens connections that see all that was submitted before in this process.

    Args:
        engine: the opened database.
        writer: what is submitted to it is waited for.
        url: its name in errors.
    """

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


def store(row: SqlRow[Any], *, task_body: str | None = None) -> Stored:
    """Make an entry with its place out of a row."""
    entry = decode_entry(row.kind, row.body, entry=row.id, task_body=task_body)
    return Stored(seq=row.seq, at=row.at, entry=entry)


def decode_task(digest: str, body: str) -> Task:
    """Make a task out of its JSON.

    Raises:
        LedgerCorrupt: it is not one.
    """
    try:
        return load_task(body)
    except msgspec.MsgspecError as error:
        raise LedgerCorrupt(f"task {digest!r} cannot be read: {error}", entry=digest) from error
