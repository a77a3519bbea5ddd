"""Runs: the runs of decisions, their verdicts, and unfinished runs."""

from collections.abc import Iterator

from sqlalchemy import exists, select

from ripieno.domain import Executed, Judged, Run
from ripieno.ledger.found import Stored
from ripieno.ledger.reading import CLAIMED, Reader, read_as, store
from ripieno.ledger.schema import entries


class RunRecords:
    """Reads runs."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def of_decision(self, decision: str) -> list[Run]:
        """Return the runs of a decision."""
        query = select(entries).where(entries.c.kind == "executed", entries.c.decision == decision)
        return [read_as(Executed, row).run for row in self._reader.rows(query)]

    def verdicts_of(self, run: str) -> list[Judged]:
        """Return the verdicts on a run, oldest first."""
        query = select(entries).where(entries.c.kind == "judged", entries.c.run == run).order_by(entries.c.seq)
        found = [read_as(Judged, row) for row in self._reader.rows(query)]
        return [entry for entry in found if not entry.verdict.is_void]

    def entries_of(self, run: str) -> Iterator[Stored]:
        """Yield all entries about a run, in the order of recording."""
        query = select(entries).where(entries.c.run == run).order_by(entries.c.seq)
        yield from map(store, self._reader.rows(query))

    def unfinished(self, *, after: int = 0) -> list[tuple[str, int]]:
        """Return the unfinished runs that were claimed after a place, oldest first, with the place of the claim."""
        end = entries.alias()
        has_ended = exists().where(end.c.run == entries.c.run, end.c.kind == "executed")
        query = select(entries.c.run, entries.c.seq).where(entries.c.kind == CLAIMED, entries.c.seq > after, ~has_ended)
        first: dict[str, int] = {}
        for row in self._reader.rows(query.order_by(entries.c.seq)):
            first.setdefault(row.run, int(row.seq))
        return list(first.items())
