"""Campaigns: measured and imported data sets, and the workers of the imported ones."""

from sqlalchemy import func, insert, select

from ripieno.domain import Executed
from ripieno.ledger.codec import decode_entry
from ripieno.ledger.database import translated_faults
from ripieno.ledger.reading import Reader
from ripieno.ledger.schema import catalog, entries


class Campaigns:
    """Reads which campaigns and data sets there are, and keeps the cards of imported workers.

    Args:
        reader: opens connections.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def run_ids(self, dataset: str) -> set[str]:
        """Ids of all runs of one campaign or data set."""
        query = select(entries.c.run).where(entries.c.kind == "executed", entries.c.dataset == dataset)
        with self._reader.connect() as connection:
            return {row.run for row in connection.execute(query)}

    def find_source(self, dataset: str) -> str:
        """Where the graded tasks of a campaign can be read again; empty where nothing says so."""
        query = select(entries).where(entries.c.kind == "executed", entries.c.dataset == dataset).limit(1)
        with self._reader.connect() as connection:
            for row in connection.execute(query):
                entry = decode_entry("executed", row.body, entry=row.id)
                assert isinstance(entry, Executed)
                return entry.run.placement.source if entry.run.placement is not None else ""
        return ""

    def datasets(self) -> dict[str, int]:
        """Campaigns and data sets, with their number of runs."""
        query = (
            select(entries.c.dataset, func.count().label("runs"))
            .where(entries.c.kind == "executed", entries.c.dataset.is_not(None))
            .group_by(entries.c.dataset)
        )
        with self._reader.connect() as connection:
            return {row.dataset: int(row.runs) for row in connection.execute(query)}

    def save_catalog(self, dataset: str, bodies: dict[str, str]) -> None:
        """Keep the cards of an imported set's workers, as JSON; known ones are left as they are."""
        with translated_faults(self._reader.url), self._reader.engine.begin() as connection:
            known = set(connection.execute(select(catalog.c.worker).where(catalog.c.dataset == dataset)).scalars())
            rows = [{"dataset": dataset, "worker": w, "body": body} for w, body in bodies.items() if w not in known]
            if rows:
                connection.execute(insert(catalog), rows)

    def load_catalog(self, dataset: str) -> dict[str, str]:
        """Cards of an imported set's workers, as JSON."""
        query = select(catalog.c.worker, catalog.c.body).where(catalog.c.dataset == dataset)
        with self._reader.connect() as connection:
            return {row.worker: row.body for row in connection.execute(query)}
