"""Training: fits a checkpoint to routing data, tests it on held-out tasks, and writes its card."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from ripieno.analyze import Analyzer
from ripieno.domain import Clock, Features, FeatureSchema, Learned, Objective, Promoted
from ripieno.errors import DataError, GateRefused
from ripieno.evaluate.benchmark import Benchmark, BenchmarkResult, find_scales, judge, prepare
from ripieno.evaluate.report import bin_calibration
from ripieno.learn.checkpoint import FORMAT, BaselineRow, Drawn, ModelCard, Registry
from ripieno.ledger import Ledger
from ripieno.route.predictors import Checkpoint
from ripieno.tasks import RoutingData, make_training_set

LEAST_TASKS = 10
BATCH = 512
_LIMITS = (
    "Estimates hold for tasks like those of the data. For other tasks they fall back to each worker's mean.",
    "A worker with another model or other options counts as a different worker.",
    "A single sample of a random worker is noisy. Repeats improve its estimates.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of one training."""

    kind: str = "stack"
    seed: int = 0
    objective: Objective = field(default_factory=Objective)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A checkpoint with its results, before it is saved."""

    checkpoint: Checkpoint
    card: ModelCard
    judged: BenchmarkResult | None
    """None without held-out tasks."""
    bench: Benchmark | None


async def analyze_prompts(analyzer: Analyzer, data: RoutingData) -> list[Features]:
    """Compute the features of every prompt of a data set, in batches."""
    tasks = [prompt.task for prompt in data.prompts]
    found: list[Features] = []
    for start in range(0, len(tasks), BATCH):
        found.extend(await analyzer.analyze_many(tasks[start : start + BATCH]))
    return found


def train(
    data: RoutingData, features: Sequence[Features], *, recipe: Recipe, schema: FeatureSchema, clock: Clock
) -> Trained:
    """Fit on the training split, and test on the test split if there is one.

    Raises:
        PredictorError: the predictor of a plugin failed.
        DataError: there are too few training tasks.
    """
    rows = data.split_rows("train")
    if len(rows) < LEAST_TASKS:
        raise DataError(
            f"{len(rows)} training tasks are too few, at least {LEAST_TASKS} are needed",
            path=data.name,
            hint="profile more tasks: `ripieno profile TASKS`",
        )
    fitted = make_training_set(data, [features[int(row)] for row in rows], rows)
    checkpoint = Checkpoint.fit(recipe.kind, fitted, rng=np.random.default_rng(recipe.seed))
    bench, judged = None, None
    if len(data.split_rows("test")):
        bench = prepare(data, features)
        judged = judge(bench, checkpoint, objective=recipe.objective, seed=recipe.seed)
    scales = find_scales(fitted)
    card = ModelCard(
        format=FORMAT,
        kind=recipe.kind,
        encoder=schema.encoder,
        features=schema,
        workers=checkpoint.workers,
        datasets=(data.name,),
        tasks=len(fitted),
        outcomes=int(np.nansum(fitted.counts)),
        all_outcomes=len(data.quality),
        seed=recipe.seed,
        ripieno=version("ripieno"),
        trained_at=datetime.fromtimestamp(clock.now(), tz=UTC).isoformat(timespec="seconds"),
        reference_cost_usd=scales.cost_usd,
        reference_latency_s=scales.latency_s,
        metrics=checkpoint.metrics,
        margin=checkpoint.margin,
        held_out_tasks=judged.report.tasks if judged else 0,
        held_out=_make_rows(judged),
        drawn=_draw(bench, judged) if bench is not None and judged is not None else None,
        verdict=judged.report.verdict if judged else "nothing was held out: no gain is proven",
        limits=_LIMITS,
    )
    return Trained(checkpoint=checkpoint, card=card, judged=judged, bench=bench)


def check_gate(trained: Trained) -> None:
    """Refuse a checkpoint that is proven to be worse than the best single worker.

    Raises:
        GateRefused: the whole 95 % interval of its utility gain is below zero.
    """
    if trained.judged is None:
        return
    gain = trained.judged.report.line("router").utility_gain
    if gain.high < 0.0:
        raise GateRefused(
            f"the router loses {-gain.mean:.4f} utility to the best single worker on held-out tasks "
            f"(95 % interval {gain.low:+.4f} to {gain.high:+.4f})",
            hint="it is saved but not promoted; `ripieno policy promote` overrules",
        )


async def promote(registry: Registry, ledger: Ledger, version_: str, *, reason: str) -> None:
    """Put a checkpoint into traffic, and record it."""
    previous = registry.promote(version_)
    nth = await asyncio.to_thread(ledger.count, "promoted")
    await ledger.append(Promoted(checkpoint=version_, previous=previous, reason=reason, nth=nth))


async def record_learned(ledger: Ledger, version_: str, card: ModelCard) -> None:
    """Record that a checkpoint was trained."""
    await ledger.append(Learned(checkpoint=version_, card=card.model_dump(mode="json")))


def _make_rows(judged: BenchmarkResult | None) -> tuple[BaselineRow, ...]:
    if judged is None:
        return ()
    return tuple(
        BaselineRow(
            name=line.name,
            quality=line.quality.mean,
            quality_low=line.quality.low,
            quality_high=line.quality.high,
            utility=line.utility.mean,
            cost_usd=line.cost_usd,
            gap_closed=line.gap_closed,
        )
        for line in judged.report.policies
    )


def _draw(bench: Benchmark, judged: BenchmarkResult) -> Drawn:
    field = bench.held_out
    costs, qualities = field.cost_usd.mean(axis=0).tolist(), field.quality.mean(axis=0).tolist()
    workers = dict(zip(field.workers, zip(costs, qualities, strict=True), strict=True)) if field.has_costs else {}
    curves = {
        name: tuple(zip(curve.cost_usd.tolist(), curve.quality.tolist(), strict=True))
        for name, curve in judged.curves.items()
    }
    bins = tuple(bin_calibration(judged.probabilities, field.quality))
    return Drawn(workers=workers, curves=curves, calibration=bins)
