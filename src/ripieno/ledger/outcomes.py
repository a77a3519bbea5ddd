"""Outcomes: rated runs, as learning and evaluation read them."""

from collections.abc import Iterable, Iterator

from sqlalchemy import exists, select

from ripieno.domain import Executed, Judged, Outcome, Run, Task
from ripieno.ledger.codec import decode_entry
from ripieno.ledger.found import Measured, TrafficOutcome
from ripieno.ledger.reading import JUDGED, Reader, decode_task, read_as
from ripieno.ledger.schema import entries, tasks

PROBE_PREFIX = "probe:"
"""Prefix of the data-set names of probes."""
_VOID = "judged:%:judge_failed:%"
"""Ids of verdicts that earlier versions recorded after a judge failed; see `Verdict.is_void`."""


class Outcomes:
    """Reads judged runs with their tasks."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def traffic(self, *, after: int, until: int | None = None) -> Iterator[TrafficOutcome]:
        """Yield the first verdict on each run of traffic and of probes, in order.

        Of the runs of several steps, only those of learned workflows count: the outcome of any other run belongs to
        no single worker.

        Args:
            after: first place, exclusive.
            until: last place, inclusive. Default: the head.
        """
        run, earlier = entries.alias(), entries.alias()
        is_first = ~exists().where(
            earlier.c.kind == "judged",
            earlier.c.run == entries.c.run,
            earlier.c.seq < entries.c.seq,
            earlier.c.id.not_like(_VOID),
        )
        columns = (entries.c.seq, entries.c.id, entries.c.body)
        query = (
            select(*columns, run.c.body.label("run_body"), tasks.c.body.label("task_body"))
            .join(run, (run.c.run == entries.c.run) & (run.c.kind == "executed"))
            .join(tasks, tasks.c.digest == run.c.task)
            .where(entries.c.kind == JUDGED, entries.c.seq > after, is_first, entries.c.id.not_like(_VOID))
            .where(run.c.dataset.is_(None) | run.c.dataset.startswith(PROBE_PREFIX))
            .order_by(entries.c.seq)
        )
        if until is not None:
            query = query.where(entries.c.seq <= until)
        for row in self._reader.stream(query):
            executed = decode_entry("executed", row.run_body, entry=row.id, task_body=row.task_body)
            assert isinstance(executed, Executed)
            assert executed.task is not None
            if executed.run.is_solo or executed.run.learned_workflow is not None:
                quality = read_as(Judged, row).verdict.quality
                yield TrafficOutcome(seq=row.seq, quality=quality, run=executed.run, task=executed.task)

    def measured(self, *, dataset: str | None = None) -> Iterator[Measured]:
        """Yield all judged runs of single workers as outcomes. The last verdict on a run counts."""
        qualities = self._read_qualities(dataset)
        for run in self._read_runs(dataset):
            if run.id in qualities and run.is_solo:
                yield _measure(run, qualities[run.id])

    def unjudged(self, dataset: str) -> list[Run]:
        """Return the runs of a campaign with an answer and without a verdict, because the judge failed or stopped."""
        qualities = self._read_qualities(dataset)
        return [run for run in self._read_runs(dataset) if run.answer is not None and run.id not in qualities]

    def tasks(self, digests: Iterable[str]) -> dict[str, Task]:
        """Return tasks by digest."""
        wanted = set(digests)
        rows = self._reader.stream(select(tasks))
        return {row.digest: decode_task(row.digest, row.body) for row in rows if row.digest in wanted}

    def _read_runs(self, dataset: str | None) -> Iterator[Run]:
        """Yield all runs, or those of one data set, in order."""
        query = select(entries).where(entries.c.kind == "executed")
        if dataset is not None:
            query = query.where(entries.c.dataset == dataset)
        for row in self._reader.stream(query.order_by(entries.c.seq)):
            yield read_as(Executed, row).run

    def _read_qualities(self, dataset: str | None) -> dict[str, float]:
        """Return the last rating of each run, or of each run of one data set."""
        query = select(entries.c.id, entries.c.body).where(entries.c.kind == JUDGED)
        if dataset is not None:
            run = entries.alias()
            mine = (run.c.run == entries.c.run) & (run.c.kind == "executed") & (run.c.dataset == dataset)
            query = query.join(run, mine)
        found = (read_as(Judged, row) for row in self._reader.stream(query.order_by(entries.c.seq)))
        return {entry.run: entry.verdict.quality for entry in found if not entry.verdict.is_void}


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
