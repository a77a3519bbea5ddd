"""Outcomes: what runs were worth, as learning and evaluation read it."""

from collections.abc import Iterable, Iterator

from sqlalchemy import exists, select

from ripieno.domain import Executed, Judged, Outcome, Run, Task
from ripieno.ledger.codec import decode_entry
from ripieno.ledger.found import Measured, TrafficOutcome
from ripieno.ledger.reading import JUDGED, Reader, decode_task
from ripieno.ledger.schema import entries, tasks

PROBE_PREFIX = "probe:"
"""Beginning of the data-set names that probes of new workers are recorded under."""
_VOID = "judged:%:judge_failed:%"
"""Ids of findings that earlier versions recorded where a judge had failed; see `Verdict.is_void`."""


class Outcomes:
    """Reads judged runs with their tasks.

    Args:
        reader: opens connections.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def traffic(self, *, after: int, until: int | None = None) -> Iterator[TrafficOutcome]:
        """First findings about runs of traffic and of probes, in order; later ones about the same run do not count.

        Runs of several steps are left out, but for those of workflows that are estimated like workers: of whom the
        outcome of any other speaks is not plain.

        Args:
            after: place from which on, exclusive.
            until: place up to which, inclusive; the head if not given.
        """
        run = entries.alias()
        earlier = entries.alias()
        is_first = ~exists().where(
            earlier.c.kind == "judged",
            earlier.c.run == entries.c.run,
            earlier.c.seq < entries.c.seq,
            earlier.c.id.not_like(_VOID),
        )
        query = (
            select(
                entries.c.seq,
                entries.c.id,
                entries.c.body,
                run.c.body.label("run_body"),
                tasks.c.body.label("task_body"),
            )
            .join(run, (run.c.run == entries.c.run) & (run.c.kind == "executed"))
            .join(tasks, tasks.c.digest == run.c.task)
            .where(entries.c.kind == JUDGED, entries.c.seq > after, is_first, entries.c.id.not_like(_VOID))
            .where(run.c.dataset.is_(None) | run.c.dataset.startswith(PROBE_PREFIX))
            .order_by(entries.c.seq)
        )
        if until is not None:
            query = query.where(entries.c.seq <= until)
        with self._reader.connect() as connection:
            for row in connection.execute(query).yield_per(1000):
                judged = decode_entry("judged", row.body, entry=row.id)
                executed = decode_entry("executed", row.run_body, entry=row.id, task_body=row.task_body)
                assert isinstance(judged, Judged)
                assert isinstance(executed, Executed)
                assert executed.task is not None
                if not executed.run.is_solo and executed.run.learned_workflow is None:
                    continue
                yield TrafficOutcome(seq=row.seq, quality=judged.verdict.quality, run=executed.run, task=executed.task)

    def measured(self, *, dataset: str | None = None) -> Iterator[Measured]:
        """All judged runs of single workers as outcomes; the last finding about a run counts."""
        qualities = self._read_qualities(dataset)
        for run in self._read_runs(dataset):
            if run.id in qualities and run.is_solo:
                yield _measure(run, qualities[run.id])

    def unjudged(self, dataset: str) -> list[Run]:
        """Runs of a campaign that have an answer and no verdict: what judges it had failed, or was stopped."""
        qualities = self._read_qualities(dataset)
        return [run for run in self._read_runs(dataset) if run.answer is not None and run.id not in qualities]

    def tasks(self, digests: Iterable[str]) -> dict[str, Task]:
        """Tasks by digest."""
        wanted = set(digests)
        with self._reader.connect() as connection:
            rows = connection.execute(select(tasks)).yield_per(5000)
            return {row.digest: decode_task(row.digest, row.body) for row in rows if row.digest in wanted}

    def _read_runs(self, dataset: str | None) -> Iterator[Run]:
        """Runs in their order, or those of one data set."""
        query = select(entries).where(entries.c.kind == "executed")
        if dataset is not None:
            query = query.where(entries.c.dataset == dataset)
        with self._reader.connect() as connection:
            for row in connection.execute(query.order_by(entries.c.seq)).yield_per(5000):
                entry = decode_entry("executed", row.body, entry=row.id)
                assert isinstance(entry, Executed)
                yield entry.run

    def _read_qualities(self, dataset: str | None) -> dict[str, float]:
        """The last finding about each run, or about each of one data set."""
        query = select(entries.c.id, entries.c.body).where(entries.c.kind == JUDGED)
        if dataset is not None:
            run = entries.alias()
            mine = (run.c.run == entries.c.run) & (run.c.kind == "executed") & (run.c.dataset == dataset)
            query = query.join(run, mine)
        with self._reader.connect() as connection:
            rows = connection.execute(query.order_by(entries.c.seq)).yield_per(5000)
            found = [decode_entry("judged", row.body, entry=row.id) for row in rows]
        judged = (entry for entry in found if isinstance(entry, Judged))
        return {entry.run: entry.verdict.quality for entry in judged if not entry.verdict.is_void}


def _measure(run: Run, quality: float) -> Measured:
    last = run.calls[-1]
    return Measured(
        outcome=Outcome(
            task=run.task,
            worker=run.worker,
            quality=quality,
            cost_usd=run.cost_usd,
            latency_s=run.latency_s,
            input_tokens=last.usage.input_tokens,
            output_tokens=last.usage.output_tokens,
        ),
        run=run.id,
        version=last.worker_version,
        placement=run.placement,
        decision=run.decision,
        failure=last.failure,
    )
