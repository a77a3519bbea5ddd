"""Runs: what was done for decisions, how it was judged, and what has no end yet."""

from collections.abc import Iterator

from sqlalchemy import exists, select

from ripieno.domain import Executed, Judged, Run
from ripieno.ledger.codec import decode_entry
from ripieno.ledger.found import Stored
from ripieno.ledger.reading import CLAIMED, Reader, store
from ripieno.ledger.schema import entries


class RunRecords:
    """Reads runs.

    Args:
        reader: opens connections.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def of_decision(self, decision: str) -> list[Run]:
        """Runs that a decision led to."""
        query = select(entries).where(entries.c.kind == "executed", entries.c.decision == decision)
        with self._reader.connect() as connection:
            found = [decode_entry("executed", row.body, entry=row.id) for row in connection.execute(query)]
        return [entry.run for entry in found if isinstance(entry, Executed)]

    def verdicts_of(self, run: str) -> list[Judged]:
        """Findings about one run, oldest first."""
        query = select(entries).where(entries.c.kind == "judged", entries.c.run == run).order_by(entries.c.seq)
        with self._reader.connect() as connection:
            found = [decode_entry("judged", row.body, entry=row.id) for row in connection.execute(query)]
        return [entry for entry in found if isinstance(entry, Judged) and not entry.verdict.is_void]

    def entries_of(self, run: str) -> Iterator[Stored]:
        """All entries about one run, in the order in which they were recorded."""
        query = select(entries).where(entries.c.run == run).order_by(entries.c.seq)
        with self._reader.connect() as connection:
            for row in connection.execute(query):
                yield store(row)

    def unfinished(self, *, after: int = 0) -> list[tuple[str, int]]:
        """Runs that were claimed and have no end yet, oldest first, each with the place of its first claim.

        Args:
            after: place from which on claims are looked at, exclusive.
        """
        end = entries.alias()
        has_ended = exists().where(end.c.run == entries.c.run, end.c.kind == "executed")
        query = select(entries.c.run, entries.c.seq).where(entries.c.kind == CLAIMED, entries.c.seq > after, ~has_ended)
        first: dict[str, int] = {}
        with self._reader.connect() as connection:
            for row in connection.execute(query.order_by(entries.c.seq)):
                first.setdefault(row.run, int(row.seq))
        return list(first.items())
