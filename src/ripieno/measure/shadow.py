"""Shadow: runs both policies' workers on the tasks where the policies disagree, until one is proven better."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ripieno.analyze import Analyzer
from ripieno.domain import Arrival, Outcome, Pool, Run, WorkerId
from ripieno.domain.grader import GradedTask
from ripieno.evaluate.sequential import BettingTest
from ripieno.measure.profile import Campaign, CampaignProgress, Profiler, plan_samples
from ripieno.route import Conditions, Router
from ripieno.route.utility import Scales, score_outcome

SHADOWS = "shadow:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """The two policies of a comparison."""

    candidate: Router
    incumbent: Router
    scales: Scales


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPair:
    """A task for which the policies choose different workers."""

    task: GradedTask
    candidate: WorkerId
    incumbent: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowing:
    """What to compare, and within which cost."""

    pairs: Sequence[WorkerPair]
    rivals: Rivals
    campaign: str
    """Name under which the calls are recorded."""
    known: Mapping[str, Outcome]
    """Recorded outcomes of earlier runs of the same campaign, by run."""
    unjudged: Mapping[str, Run] = field(default_factory=dict)
    """Recorded runs without a verdict. Their answers are judged, and their workers not called again."""
    most_cost_usd: float | None = None


class Shadow:
    """Runs paired calls. Each is recorded, so that an interrupted shadow can resume."""

    def __init__(self, profiler: Profiler, analyzer: Analyzer) -> None:
        self._profiler = profiler
        self._analyzer = analyzer

    async def find_pairs(self, tasks: Sequence[GradedTask], rivals: Rivals, conditions: Conditions) -> list[WorkerPair]:
        """Find the tasks on which the policies disagree, in a random but fixed order."""
        features = await self._analyzer.analyze_many([task.task for task in tasks])
        pairs = []
        for task, found in zip(tasks, features, strict=True):
            arrival = Arrival(id="", seed=0, started=0.0)
            inputs = rivals.incumbent.gather(task.task, found, conditions, arrival=arrival)
            candidate = rivals.candidate.decide_likeliest(inputs).worker
            incumbent = rivals.incumbent.decide_likeliest(inputs).worker
            if candidate != incumbent:
                pairs.append(WorkerPair(task=task, candidate=candidate, incumbent=incumbent))
        order = np.random.default_rng(0).permutation(len(pairs))
        return [pairs[index] for index in order]

    async def run(
        self,
        shadowing: Shadowing,
        pool: Pool,
        test: BettingTest,
        *,
        on_progress: Callable[[CampaignProgress], None] | None = None,
    ) -> CampaignProgress:
        """Call both workers of each pair until the test is decided. Return the cost and the missing verdicts.

        The test ignores a pair with an answer that could not be judged.
        """
        progress = CampaignProgress(total=len(shadowing.pairs), done=0, resumed=0)
        for pair in shadowing.pairs:
            if test.is_rejected or progress.is_over(shadowing.most_cost_usd):
                break
            better = await self._try(pair.task, pair.candidate, pool, shadowing, progress)
            worse = await self._try(pair.task, pair.incumbent, pool, shadowing, progress)
            if better is not None and worse is not None:
                test.update(float(np.clip(better - worse, -1.0, 1.0)))
            progress.done += 1
            if on_progress is not None:
                on_progress(progress)
        return progress

    async def _try(
        self, task: GradedTask, worker: WorkerId, pool: Pool, shadowing: Shadowing, progress: CampaignProgress
    ) -> float | None:
        """Return the utility of one worker's answer; None if it could not be judged."""
        campaign = Campaign(name=shadowing.campaign, tasks=(task,), workers=(worker,))
        sample = plan_samples(campaign, pool)[0]
        known = shadowing.known.get(sample.run)
        if known is not None:
            quality, cost, latency = known.quality, known.cost_usd, known.latency_s
        else:
            recorded = shadowing.unjudged.get(sample.run)
            taken = await self._profiler.measure(sample, campaign=shadowing.campaign, recorded=recorded)
            call = taken.result.call
            if recorded is None:
                progress.add_cost(call.cost_usd)
            progress.count_sample(sample.run, worker, taken)
            if taken.verdict is None:
                return None
            quality, cost, latency = taken.verdict.quality, call.cost_usd, call.latency_s
        return score_outcome(quality, cost, latency, task.task.objective, shadowing.rivals.scales)
