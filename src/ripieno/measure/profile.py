"""Profile: tasks by workers by repeats, into the ledger. Interrupted at any moment, it goes on where it was."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ripieno.domain import Executed, Judged, Origin, Placement, Pool, Run, Verdict, Worker, sum_costs
from ripieno.domain.grader import GradedTask
from ripieno.errors import BudgetExhausted, ProviderError, UnknownPrice
from ripieno.ledger import Ledger
from ripieno.providers import Called, Caller
from ripieno.verify import Grading


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What to measure."""

    name: str
    tasks: tuple[GradedTask, ...]
    workers: tuple[str, ...]
    repeats: int = 1
    most_cost_usd: float | None = None
    """Ceiling for this campaign as a whole, what was spent before included."""
    skip: Callable[[GradedTask, str], bool] = lambda task, worker: False
    """Pairs to leave unmeasured."""
    source: str = ""
    """Where the tasks can be read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One cell of a campaign."""

    task: GradedTask
    worker: Worker
    repeat: int
    run: str
    """Id of its run: the same campaign gives the same sample the same id, always."""


@dataclass(slots=True)
class Progress:
    """How far a campaign is; changed in place as samples end."""

    total: int
    done: int
    """Samples recorded, those of earlier runs included."""
    resumed: int
    spent_usd: float = 0.0
    """Known part of it."""
    unknown: int = 0
    """Samples whose cost is unknown."""
    accepted: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)

    def is_over(self, ceiling: float | None) -> bool:
        """Whether the money is spent, or nobody can say that it is not."""
        return ceiling is not None and (self.unknown > 0 or self.spent_usd >= ceiling)

    def note_cost(self, cost_usd: float | None) -> None:
        """Count what one sample has cost."""
        if cost_usd is None:
            self.unknown += 1
        else:
            self.spent_usd += cost_usd


class Profiler:
    """Measures workers on tasks."""

    def __init__(self, caller: Caller, grading: Grading, ledger: Ledger) -> None:
        self._caller = caller
        self._grading = grading
        self._ledger = ledger

    async def run(
        self, campaign: Campaign, pool: Pool, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Progress:
        """Measure all samples that are not recorded yet; each is recorded the moment it ends.

        Raises:
            BudgetExhausted: the ceiling was reached; all that was measured is recorded.
            LedgerError: the record refuses; samples under way are lost, recorded ones are safe.
        """
        samples = plan_samples(campaign, pool)
        known = self._ledger.run_ids(campaign.name)
        waiting = [sample for sample in samples if sample.run not in known]
        done = len(samples) - len(waiting)
        progress = Progress(total=len(samples), done=done, resumed=done)
        if done:
            progress.spent_usd, progress.unknown = self._count_spent(campaign.name)
        try:
            async with asyncio.TaskGroup() as group:
                for worker in {sample.worker.id: sample.worker for sample in waiting}.values():
                    queue = [sample for sample in waiting if sample.worker.id == worker.id]
                    lanes = iter(queue)
                    for _ in range(min(worker.max_concurrency, len(queue))):
                        group.create_task(self._work(lanes, campaign, progress, on_progress))
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        ceiling = campaign.most_cost_usd
        if ceiling is not None and progress.unknown:
            raise UnknownPrice(", ".join(campaign.workers))
        if ceiling is not None and progress.done < progress.total:
            raise BudgetExhausted("profiling cost (USD)", spent=progress.spent_usd, limit=ceiling)
        return progress

    async def measure(self, sample: Sample, *, campaign: str, source: str = "") -> tuple[Called, Verdict]:
        """Take one sample, judge it and record it under the name of a campaign."""
        called = await self._caller.measure(sample.worker, sample.task.task)
        verdict = await self._judge(sample, called)
        await self._record(sample, called, verdict, campaign=campaign, source=source)
        return called, verdict

    async def _work(
        self,
        lane: Iterator[Sample],
        campaign: Campaign,
        progress: Progress,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        while not progress.is_over(campaign.most_cost_usd) and (sample := next(lane, None)) is not None:
            called, verdict = await self.measure(sample, campaign=campaign.name, source=campaign.source)
            progress.done += 1
            progress.note_cost(called.call.cost_usd)
            progress.accepted += verdict.quality
            if called.call.failure is not None:
                failure = called.call.failure.value
                progress.failures[failure] = progress.failures.get(failure, 0) + 1
            if on_progress is not None:
                on_progress(progress)

    async def _judge(self, sample: Sample, called: Called) -> Verdict:
        if called.answer is None:
            return Verdict(verifier="call", quality=0.0, detail=str(called.call.failure))
        try:
            return await self._grading.grade(
                sample.task.grader, sample.task.task, called.answer, author=sample.worker.id
            )
        except ProviderError as error:
            return Verdict(verifier="judge_failed", quality=0.0, detail=error.message)

    async def _record(self, sample: Sample, called: Called, verdict: Verdict, *, campaign: str, source: str) -> None:
        task = sample.task
        placement = Placement(
            dataset=campaign, item=task.id, split=task.split, group=task.template, repeat=sample.repeat, source=source
        )
        run = Run(
            id=sample.run,
            task=task.task.digest,
            origin=Origin.PROFILE,
            calls=(called.call,),
            answer=called.answer,
            placement=placement,
        )
        await self._ledger.append(Executed(run=run, task=task.task), Judged(run=run.id, verdict=verdict))

    def _count_spent(self, campaign: str) -> tuple[float, int]:
        return sum_costs([measured.outcome.cost_usd for measured in self._ledger.measured(dataset=campaign)])


def plan_samples(campaign: Campaign, pool: Pool) -> list[Sample]:
    """All samples of a campaign, tasks in order, so that an early stop leaves every worker measured alike."""
    named = {task.id: f"{task.id}\x1f{task.task.digest}" for task in campaign.tasks}
    workers = {worker: pool[worker] for worker in campaign.workers}
    versions = {worker: f"{worker}\x1f{card.version}" for worker, card in workers.items()}
    return [
        Sample(
            task=task,
            worker=workers[worker],
            repeat=repeat,
            run=_name_run(campaign.name, named[task.id], versions[worker], repeat),
        )
        for repeat in range(campaign.repeats)
        for task in campaign.tasks
        for worker in campaign.workers
        if not campaign.skip(task, worker)
    ]


def _name_run(campaign: str, task: str, worker: str, repeat: int) -> str:
    packed = "\x1f".join((campaign, task, worker, str(repeat)))
    return f"profile/{hashlib.sha256(packed.encode()).hexdigest()[:24]}"


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
