"""Campaigns: measured and imported data sets, and the workers of the imported ones."""

from sqlalchemy import func, insert, select

from ripieno.domain import Executed
from ripieno.ledger.database import translated_faults
from ripieno.ledger.reading import Reader, read_as
from ripieno.ledger.schema import catalog, entries


class Campaigns:
    """Reads campaigns and data sets, and stores the cards of imported workers."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def run_ids(self, dataset: str) -> set[str]:
        """Return the ids of all runs of one campaign or data set."""
        query = select(entries.c.run).where(entries.c.kind == "executed", entries.c.dataset == dataset)
        return {row.run for row in self._reader.rows(query)}

    def find_source(self, dataset: str) -> str:
        """Return the source of a campaign's graded tasks; empty if none is recorded."""
        query = select(entries).where(entries.c.kind == "executed", entries.c.dataset == dataset).limit(1)
        placements = [read_as(Executed, row).run.placement for row in self._reader.rows(query)]
        return next((placement.source for placement in placements if placement is not None), "")

    def datasets(self) -> dict[str, int]:
        """Count the runs of each campaign and data set."""
        query = (
            select(entries.c.dataset, func.count().label("runs"))
            .where(entries.c.kind == "executed", entries.c.dataset.is_not(None))
            .group_by(entries.c.dataset)
        )
        return {row.dataset: int(row.runs) for row in self._reader.rows(query)}

    def save_catalog(self, dataset: str, bodies: dict[str, str]) -> None:
        """Store the cards of an imported set's workers, as JSON. Stored cards do not change."""
        with translated_faults(self._reader.url), self._reader.engine.begin() as connection:
            known = set(connection.execute(select(catalog.c.worker).where(catalog.c.dataset == dataset)).scalars())
            rows = [{"dataset": dataset, "worker": w, "body": body} for w, body in bodies.items() if w not in known]
            if rows:
                connection.execute(insert(catalog), rows)

    def load_catalog(self, dataset: str) -> dict[str, str]:
        """Return the cards of an imported set's workers, as JSON."""
        query = select(catalog.c.worker, catalog.c.body).where(catalog.c.dataset == dataset)
        return {row.worker: row.body for row in self._reader.rows(query)}
