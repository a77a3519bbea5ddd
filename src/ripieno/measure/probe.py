"""Probe: a few well-chosen tasks that show where to use a new worker."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.analyze import Analyzer
from ripieno.domain import Matrix, Pool, Standing, WorkerId
from ripieno.domain.grader import GradedTask
from ripieno.errors import NoVerdict
from ripieno.ledger import PROBE_PREFIX
from ripieno.measure.profile import Campaign, CampaignProgress, Profiler, Taken, plan_samples
from ripieno.route.predictors import Estimator
from ripieno.route.predictors.belief import chance_best, choose_probe, is_settled

LEAST_PROBES = 10
"""Fewest probes. The estimate before the first answer is only a guess from the card."""
MOST_UNJUDGED = 5
"""Probes after which probing stops if none has a verdict: the judge fails, and more calls teach nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """What to probe."""

    worker: WorkerId
    tasks: tuple[GradedTask, ...]
    budget: int
    """Most probes, including those of earlier runs."""
    most_cost_usd: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeProfile:
    """A worker's profile after its probes."""

    probes: int
    unjudged: int
    """Probes without a verdict because the judge failed."""
    spent_usd: float
    quality: float
    """Mean expected quality over the given tasks."""
    quality_sd: float
    chance_best: float
    """Share of the given tasks in whose group the worker is probably the best one."""
    is_settled: bool
    """Whether more probes would hardly change where it is used."""
    standing: Standing


class Prober:
    """Runs one task after the other, each chosen to reduce the remaining uncertainty.

    `learn` learns from the recorded outcomes, and returns the new estimator.
    """

    def __init__(
        self,
        profiler: Profiler,
        analyzer: Analyzer,
        learn: Callable[[], Awaitable[Estimator]],
    ) -> None:
        self._profiler = profiler
        self._analyzer = analyzer
        self._learn = learn

    async def run(
        self,
        probing: Probing,
        pool: Pool,
        *,
        known: set[str],
        on_progress: Callable[[CampaignProgress], None] | None = None,
    ) -> ProbeProfile:
        """Probe until the budget is spent or the profile is settled.

        `known` are the ids of the recorded runs of earlier probes.

        Raises:
            NoVerdict: the judge fails on every probe. The answers are recorded.
        """
        campaign = Campaign(name=name_probes(probing.worker), tasks=probing.tasks, workers=(probing.worker,))
        samples = plan_samples(campaign, pool)
        features = await self._analyzer.analyze_many([task.task for task in probing.tasks])
        unjudged = await self._profiler.judge_again(campaign, pool)
        estimator = await self._learn()
        expected, weights = estimator.expect(features, pool[probing.worker])
        asked = {row for row, sample in enumerate(samples) if sample.run in known}
        progress = CampaignProgress(total=min(probing.budget, len(samples)), done=len(asked), resumed=len(asked))
        progress.unjudged = unjudged
        rng = np.random.default_rng(len(samples))
        while progress.done < progress.total and not progress.is_over(probing.most_cost_usd):
            if progress.done >= LEAST_PROBES and is_settled(
                _find_chances(estimator, probing.worker, weights, expected)
            ):
                break
            row = choose_probe(
                estimator.belief_of(probing.worker), weights, expected,
                rivals=estimator.checkpoint.rivals, asked=asked, rng=rng,
            )  # fmt: skip
            taken = await self._profiler.measure(samples[row], campaign=campaign.name, source=probing.source)
            estimator = await self._learn()
            asked.add(row)
            progress.done += 1
            progress.add_cost(taken.result.call.cost_usd)
            progress.count_sample(samples[row].run, probing.worker, taken)
            _refuse_blind(progress, taken)
            if on_progress is not None:
                on_progress(progress)
        return _summarise(estimator, probing.worker, weights, expected, progress)


def _summarise(
    estimator: Estimator, worker: WorkerId, weights: Matrix, expected: Matrix, progress: CampaignProgress
) -> ProbeProfile:
    quality, sd = estimator.belief_of(worker).apply(weights, expected)
    chances = _find_chances(estimator, worker, weights, expected)
    return ProbeProfile(
        probes=progress.done,
        unjudged=len(progress.unjudged),
        spent_usd=progress.spent_usd,
        quality=float(quality.mean()),
        quality_sd=float(sd.mean()),
        chance_best=float((chances[weights.argmax(axis=1)] > 0.5).mean()),
        is_settled=is_settled(chances),
        standing=estimator.standing(worker, sd=float(sd.mean())),
    )


def _find_chances(estimator: Estimator, worker: WorkerId, weights: Matrix, expected: Matrix) -> Matrix:
    """Return the probability that a worker is as good as the best one in each group, shape (k,)."""
    return chance_best(estimator.belief_of(worker), weights, expected, rivals=estimator.checkpoint.rivals)


def _refuse_blind(progress: CampaignProgress, taken: Taken) -> None:
    """Stop if no probe gets a verdict.

    Raises:
        NoVerdict: the judge fails. The answers are recorded, and the next run judges them.
    """
    if taken.verdict is None and len(progress.unjudged) >= MOST_UNJUDGED and len(progress.unjudged) == progress.done:
        raise NoVerdict(
            f"none of {progress.done} probes has a verdict: {taken.fault}",
            verifier="probe",
            hint="the answers are recorded; fix the judge (profile.judge), then probe again",
        )


def name_probes(worker: WorkerId) -> str:
    """Name the data set of a worker's probes."""
    return f"{PROBE_PREFIX}{worker}"


def choose_probe_tasks(tasks: Sequence[GradedTask]) -> tuple[GradedTask, ...]:
    """Return the tasks of the training split, so that held-out ones stay unseen."""
    return tuple(task for task in tasks if task.split == "train")
