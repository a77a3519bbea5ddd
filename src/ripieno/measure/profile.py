"""Profile: measures tasks by workers by repeats, and records them in the ledger. An interrupted profile resumes.

An answer whose judge fails is recorded without a verdict. The next run of the campaign judges the recorded answer, and
does not call the worker again.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ripieno.domain import Executed, Judged, Origin, Placement, Pool, Run, Verdict, Worker, WorkerId, sum_costs
from ripieno.domain.grader import GradedTask
from ripieno.errors import BudgetExhausted, InvalidTask, NoVerdict, UnknownPrice, WithheldTask
from ripieno.ledger import Ledger
from ripieno.providers import CallAnswered, Caller, CallFailed, CallResult
from ripieno.verify import Grading

JUDGED_AT_ONCE = 8
"""Answers that are judged concurrently. More would exceed a judge that allows this many concurrent calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What to measure."""

    name: str
    tasks: tuple[GradedTask, ...]
    workers: tuple[str, ...]
    repeats: int = 1
    most_cost_usd: float | None = None
    """Most cost of the whole campaign, including earlier runs."""
    skip: Callable[[GradedTask, str], bool] = lambda task, worker: False
    """Pairs to leave unmeasured."""
    source: str = ""
    """Path or URL of the tasks, to read them again."""
    with_effects: bool = False
    """Whether to measure workers whose calls have effects or need approval. Each sample is such a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One cell of a campaign."""

    task: GradedTask
    worker: Worker
    repeat: int
    run: str
    """Id of its run. The same sample of the same campaign always gets the same id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Result of one sample."""

    result: CallResult
    verdict: Verdict | None
    """None if the judge failed, so that the quality is unknown."""
    fault: str = ""
    """Why there is no verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjudged:
    """A recorded answer without a verdict."""

    worker: WorkerId
    why: str


@dataclass(slots=True)
class CampaignProgress:
    """Progress of a campaign, changed in place as samples end."""

    total: int
    done: int
    """Recorded samples, including those of earlier runs."""
    resumed: int
    spent_usd: float = 0.0
    """Known part of the cost."""
    unknown: int = 0
    """Samples whose cost is unknown."""
    accepted: float = 0.0
    """Sum of the qualities."""
    judged_again: int = 0
    """Answers of earlier runs that have a verdict now."""
    unjudged: dict[str, Unjudged] = field(default_factory=dict)
    """Answers without a verdict, by run."""
    failures: dict[str, int] = field(default_factory=dict)

    def is_over(self, ceiling: float | None) -> bool:
        """Return whether the ceiling is reached, or might be, because a cost is unknown."""
        return ceiling is not None and (self.unknown > 0 or self.spent_usd >= ceiling)

    def add_cost(self, cost_usd: float | None) -> None:
        """Add the cost of one sample."""
        if cost_usd is None:
            self.unknown += 1
        else:
            self.spent_usd += cost_usd

    @property
    def unjudged_workers(self) -> dict[str, int]:
        """Count the answers without a verdict by worker."""
        return dict(sorted(Counter(str(each.worker) for each in self.unjudged.values()).items()))

    @property
    def unjudged_reasons(self) -> dict[str, int]:
        """Count the reasons for missing verdicts, the most common first."""
        return dict(Counter(each.why for each in self.unjudged.values()).most_common())

    def count_sample(self, run: str, worker: WorkerId, taken: Taken) -> None:
        """Count the result of one sample."""
        if taken.verdict is None:
            self.unjudged[run] = Unjudged(worker=worker, why=taken.fault)
            return
        self.unjudged.pop(run, None)
        self.accepted += taken.verdict.quality


class Profiler:
    """Measures workers on tasks."""

    def __init__(self, caller: Caller, grading: Grading, ledger: Ledger) -> None:
        self._caller = caller
        self._grading = grading
        self._ledger = ledger
        self._judging = asyncio.Semaphore(JUDGED_AT_ONCE)

    async def run(
        self, campaign: Campaign, pool: Pool, *, on_progress: Callable[[CampaignProgress], None] | None = None
    ) -> CampaignProgress:
        """Measure all samples that are not recorded yet. Each is recorded as soon as it ends.

        Raises:
            InvalidTask: a worker has effects or needs approval, and the campaign does not allow that.
            BudgetExhausted: the ceiling was reached. All finished samples are recorded.
            LedgerError: the ledger refuses entries. Current samples are lost; recorded ones are safe.
        """
        samples = plan_samples(campaign, pool)
        known = await asyncio.to_thread(self._ledger.campaigns.run_ids, campaign.name)
        waiting = [sample for sample in samples if sample.run not in known]
        done = len(samples) - len(waiting)
        progress = CampaignProgress(total=len(samples), done=done, resumed=done)
        planned = {sample.run: sample for sample in samples}
        try:
            if done:
                progress.spent_usd, progress.unknown = await asyncio.to_thread(self._count_spent, campaign.name)
                progress.judged_again = await self._judge_again(campaign.name, planned, progress)
            async with asyncio.TaskGroup() as group:
                for worker in {sample.worker.id: sample.worker for sample in waiting}.values():
                    queue = [sample for sample in waiting if sample.worker.id == worker.id]
                    lanes = iter(queue)
                    for _ in range(min(worker.max_concurrency, len(queue))):
                        group.create_task(self._measure_lane(lanes, campaign, progress, on_progress))
            if progress.done > done and progress.unjudged:
                await self._judge_again(campaign.name, planned, progress)
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        ceiling = campaign.most_cost_usd
        if ceiling is not None and progress.unknown:
            raise UnknownPrice(", ".join(campaign.workers))
        if ceiling is not None and progress.done < progress.total:
            raise BudgetExhausted("profiling cost (USD)", spent=progress.spent_usd, limit=ceiling)
        return progress

    async def judge_again(self, campaign: Campaign, pool: Pool) -> dict[str, Unjudged]:
        """Judge the recorded answers of a campaign without a verdict, once each. Return those still without one."""
        progress = CampaignProgress(total=0, done=0, resumed=0)
        planned = {sample.run: sample for sample in plan_samples(campaign, pool)}
        await self._judge_again(campaign.name, planned, progress)
        return progress.unjudged

    async def measure(self, sample: Sample, *, campaign: str, source: str = "", recorded: Run | None = None) -> Taken:
        """Take one sample, judge it, and record it under the name of a campaign.

        Args:
            sample: the sample.
            campaign: name of the campaign.
            source: path or URL of the task, to read it again.
            recorded: the sample's run, if its answer is recorded without a verdict. Then only the judge is called.
        """
        if recorded is not None and recorded.answer is not None:
            taken = await self._judge(sample, CallAnswered(call=recorded.calls[-1], answer=recorded.answer))
            if taken.verdict is not None:
                await self._ledger.append(Judged(run=sample.run, verdict=taken.verdict))
            return taken
        if sample.worker.is_restricted:  # at most once: a failed call may have had effects
            result = await self._caller.call(sample.worker, sample.task.task, attempts=1)
        else:
            result = await self._caller.measure(sample.worker, sample.task.task)
        if isinstance(result, CallFailed) and isinstance(result.error, WithheldTask):  # it was never sent
            return Taken(result=result, verdict=None, fault=result.error.message)
        taken = await self._judge(sample, result)
        await self._record(sample, taken, campaign=campaign, source=source)
        return taken

    async def _measure_lane(
        self,
        lane: Iterator[Sample],
        campaign: Campaign,
        progress: CampaignProgress,
        on_progress: Callable[[CampaignProgress], None] | None,
    ) -> None:
        while not progress.is_over(campaign.most_cost_usd) and (sample := next(lane, None)) is not None:
            taken = await self.measure(sample, campaign=campaign.name, source=campaign.source)
            call = taken.result.call
            progress.done += 1
            progress.add_cost(call.cost_usd)
            progress.count_sample(sample.run, sample.worker.id, taken)
            if call.failure is not None:
                progress.failures[call.failure.value] = progress.failures.get(call.failure.value, 0) + 1
            if on_progress is not None:
                on_progress(progress)

    async def _judge_again(self, campaign: str, planned: Mapping[str, Sample], progress: CampaignProgress) -> int:
        """Judge the recorded answers without a verdict, once each. Return how many have one now."""
        unjudged = await asyncio.to_thread(self._ledger.outcomes.unjudged, campaign)
        runs = [run for run in unjudged if run.id in planned]
        lanes = iter(runs)

        async def judge_lane(runs: Iterable[Run]) -> int:
            judged = 0
            for run in runs:
                sample = planned[run.id]
                taken = await self.measure(sample, campaign=campaign, recorded=run)
                progress.count_sample(run.id, sample.worker.id, taken)
                judged += taken.verdict is not None
            return judged

        async with asyncio.TaskGroup() as group:
            found = [group.create_task(judge_lane(lanes)) for _ in range(min(JUDGED_AT_ONCE, len(runs)))]
        return sum(each.result() for each in found)

    async def _judge(self, sample: Sample, result: CallResult) -> Taken:
        if isinstance(result, CallFailed):
            failed = Verdict(verifier="call", quality=0.0, detail=str(result.call.failure))
            return Taken(result=result, verdict=failed)
        try:
            async with self._judging:
                verdict = await self._grading.grade(
                    sample.task.grader, sample.task.task, result.answer, author=sample.worker.id
                )
        except NoVerdict as error:
            return Taken(result=result, verdict=None, fault=error.message)
        return Taken(result=result, verdict=verdict)

    async def _record(self, sample: Sample, taken: Taken, *, campaign: str, source: str) -> None:
        task, result = sample.task, taken.result
        placement = Placement(
            dataset=campaign, item=task.id, split=task.split, group=task.template, repeat=sample.repeat, source=source
        )
        run = Run(
            id=sample.run,
            task=task.task.digest,
            origin=Origin.PROFILE,
            calls=(result.call,),
            answer=result.answer if isinstance(result, CallAnswered) else None,
            placement=placement,
        )
        executed = Executed(run=run, task=task.task)
        if taken.verdict is None:
            await self._ledger.append(executed)
        else:
            await self._ledger.append(executed, Judged(run=run.id, verdict=taken.verdict))

    def _count_spent(self, campaign: str) -> tuple[float, int]:
        entries = (stored.entry for stored in self._ledger.read(kinds=("executed",), dataset=campaign))
        return sum_costs([entry.run.cost_usd for entry in entries if isinstance(entry, Executed)])


def plan_samples(campaign: Campaign, pool: Pool) -> list[Sample]:
    """List the samples of a campaign by task, so that an early stop leaves all workers equally measured.

    Raises:
        InvalidTask: a worker has effects or needs approval, and the campaign does not allow that.
    """
    if not campaign.with_effects:
        require_plain([pool[worker] for worker in campaign.workers])
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


def require_plain(workers: Sequence[Worker]) -> None:
    """Refuse to measure workers whose calls have effects or need approval.

    Raises:
        InvalidTask: one of them is such a worker.
    """
    for worker in workers:
        if worker.is_restricted:
            what = "change something" if worker.has_effects else "need a human's approval"
            raise InvalidTask(
                f"{worker.id!r} is not measured: its calls {what}, and each sample is a call",
                hint=f"`ripieno profile TASKS --worker {worker.id} --with-effects` measures it anyway",
            )


def _name_run(campaign: str, task: str, worker: str, repeat: int) -> str:
    packed = "\x1f".join((campaign, task, worker, str(repeat)))
    return f"profile/{hashlib.sha256(packed.encode()).hexdigest()[:24]}"


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
