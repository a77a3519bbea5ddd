"""Benchmark of a router and all baselines on the held-out prompts of one data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain import Features, Objective, WorkerId
from ripieno.domain.training import TrainingSet, column_means
from ripieno.errors import CheckpointError, DataError
from ripieno.evaluate.curve import Curve, choose_penalty, gap_recovered
from ripieno.evaluate.report import (
    BenchmarkReport,
    Coverage,
    Entrant,
    Field,
    Table,
    describe_costs,
    give_verdict,
    trace_curves,
    utilities,
    value_silence,
)
from ripieno.route.choose import DecisionRule, EstimateArrays, abstain, choose
from ripieno.route.predictors import REGRESSORS, Checkpoint
from ripieno.route.predictors.calibration import expected_calibration_error
from ripieno.route.predictors.prior import UNKNOWN_LATENCY_S
from ripieno.route.predictors.scale import UNKNOWN_LOG_SD
from ripieno.route.predictors.uncertainty import cover, gather_cells
from ripieno.route.utility import Priced, Scales
from ripieno.tasks import RoutingData, keep_models, make_training_set, split_repeats

BASELINE_KINDS = ("knn", "ridge", "clusters")
BEST_QUALITY = Objective(preference=1.0, preset="best", mission_criticality=0.0, time_criticality=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Benchmark:
    """A data set, split into training and held-out prompts."""

    data: RoutingData
    train: TrainingSet
    test: TrainingSet
    held_out: Field
    test_rows: np.ndarray
    scales: Scales


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BenchmarkResult:
    """A finished benchmark: its report, and the router's own numbers on the held-out prompts."""

    report: BenchmarkReport
    probabilities: np.ndarray
    """Predicted quality, shape (t, m)."""
    chosen: np.ndarray
    """Column of the worker that the router takes, or would take where it abstains, shape (t,)."""
    curves: Mapping[str, Curve]
    """Cost against quality by name; empty if costs are unknown."""


def prepare(data: RoutingData, features: Sequence[Features]) -> Benchmark:
    """Split a data set by its own splits, without the models that have no held-out outcome.

    Raises:
        DataError: a split is empty, or a held-out prompt lacks an outcome for every model.
    """
    train_rows, test_rows = data.split_rows("train"), data.split_rows("test")
    for name, rows in (("train", train_rows), ("test", test_rows)):
        if not len(rows):
            raise DataError(f"no prompt is in the split {name!r}", path=data.name, place="prompts, column split")
    is_tested = ~np.isnan(data.matrix(data.quality)[test_rows]).all(axis=0)
    if is_tested.any() and not is_tested.all():
        data = keep_models(data, np.flatnonzero(is_tested).tolist())
    is_complete = ~np.isnan(data.matrix(data.quality)[test_rows]).any(axis=1)
    test_rows = test_rows[is_complete]
    if not len(test_rows):
        raise DataError("no held-out prompt has an outcome of every model", path=data.name, place="outcomes")
    train = make_training_set(data, [features[int(row)] for row in train_rows], train_rows)
    test = make_training_set(data, [features[int(row)] for row in test_rows], test_rows)
    return Benchmark(
        data=data,
        train=train,
        test=test,
        held_out=_make_field(data, test, test_rows),
        test_rows=test_rows,
        scales=find_scales(train),
    )


def find_scales(train: TrainingSet) -> Scales:
    """Find an ordinary cost and latency: the mean over workers of each worker's mean on the training tasks."""
    cost, latency = (np.nanmean(_or_nan(column_means(part)[None, :])) for part in (train.cost_usd, train.latency_s))
    default = Scales()
    return Scales(
        cost_usd=float(cost) if cost > 0 else default.cost_usd,
        latency_s=float(latency) if latency > 0 else default.latency_s,
    )


def judge(
    bench: Benchmark,
    predictor: Checkpoint,
    *,
    objective: Objective = BEST_QUALITY,
    baselines: Sequence[str] = BASELINE_KINDS,
    extra: Sequence[Entrant] = (),
    seed: int = 0,
) -> BenchmarkResult:
    """Score the predictor and every baseline on the held-out prompts.

    Args:
        bench: the data set.
        predictor: fitted on `bench.train`, or loaded from a checkpoint of the same workers.
        objective: the objective that utility is measured for.
        baselines: kinds of regressors to fit on the same vectors of the same training prompts, uncalibrated. Their
            costs and uncertainties are the router's.
        extra: further entrants, each with shares over `bench.held_out.workers`.
        seed: seed of the intervals.
    """
    best = bench.train.best_single()
    table = Table(bench.held_out, best_single=best, objective=objective, scales=bench.scales)
    expected = expect(predictor, bench.test.features, bench.train.workers)
    rule = DecisionRule(scales=bench.scales, margin=predictor.margin)
    entrants = _enter_baselines(bench, predictor, expected, table, kinds=baselines, extra=extra)
    chosen = choose(expected, objective, rule).leader
    silent = abstain(expected, chosen, objective)
    entrants.append(table.take(chosen, name="router", note=_note_margin(rule.margin), silent=silent))
    predicted = expected.expected
    expected_cost = np.nan_to_num(_fill_cost(predicted.cost_usd, bench.train))
    if bench.held_out.has_costs and predictor.out_of_fold is not None:
        weight = _learn_penalty(bench, predictor)
        entrants.append(table.choose(predicted.quality - weight * expected_cost, name="thrifty router",
                                     note="price of money chosen on train"))  # fmt: skip
    entrants.append(table.oracle())
    lines = table.score(entrants, seed=seed)
    curves = trace_curves(bench.held_out, scores=predicted.quality, expected_cost=expected_cost)
    named = {line.name: line for line in lines}
    routed = np.where(silent, 0.0, bench.held_out.quality[np.arange(len(chosen)), chosen])
    report = BenchmarkReport(
        name=bench.data.name,
        tasks=len(bench.test),
        train_tasks=len(bench.train),
        workers=bench.held_out.workers,
        best_single=bench.held_out.workers[best],
        policies=lines,
        verdict=give_verdict(named["router"], named["oracle"]),
        calibration_error=expected_calibration_error(predicted.quality, bench.held_out.quality),
        margin=rule.margin,
        quality_of={kind: float(routed[rows].mean()) for kind, rows in _split_kinds(bench.held_out).items()},
        **_describe_trust(bench, predictor, expected),  # type: ignore[arg-type]  # fields of a report
        **describe_costs(bench.held_out, curves, best_single=best),  # type: ignore[arg-type]  # fields of a report
    )
    return BenchmarkResult(report=report, probabilities=predicted.quality, chosen=chosen, curves=curves)


def _enter_baselines(
    bench: Benchmark,
    predictor: Checkpoint,
    expected: EstimateArrays,
    table: Table,
    *,
    kinds: Sequence[str],
    extra: Sequence[Entrant],
) -> list[Entrant]:
    """Make the entrants that the router is compared with, without the oracle."""
    entrants = [
        table.uniform(),
        table.always(_cheapest(bench.train), name="cheapest"),
        table.always(_majority(bench.train), name="majority label"),
        table.always(table.best_single, name="best single"),
        *extra,
        table.choose(_task_means(bench), name="task label", note="reads the label"),
    ]
    z, fresh = predictor.vectors(bench.train.features), predictor.vectors(bench.test.features)
    unguarded = DecisionRule(scales=bench.scales, margin=0.0)
    for kind in kinds:
        plain = _predict_plain(bench, kind, z, fresh)
        other = replace(expected, expected=replace(expected.expected, quality=plain))
        entrants.append(table.take(choose(other, table.objective, unguarded).leader, name=kind))
    return entrants


def routed_utility(
    bench: Benchmark, predictor: Checkpoint, objective: Objective, *, rule: DecisionRule | None = None
) -> np.ndarray:
    """Measure the utility of the served rule with a predictor on each held-out task, shape (t,).

    Without a rule, it uses the predictor's margin at the scales of the benchmark.
    """
    expected = expect(predictor, bench.test.features, bench.train.workers)
    rule = rule or DecisionRule(scales=bench.scales, margin=predictor.margin)
    chosen = choose(expected, objective, rule).leader
    earned = utilities(bench.held_out, objective, bench.scales)[np.arange(len(chosen)), chosen]
    return np.where(abstain(expected, chosen, objective), value_silence(objective), earned)


def expect(predictor: Checkpoint, features: Sequence[Features], workers: Sequence[str]) -> EstimateArrays:
    """Estimate many tasks as the router does for known, idle workers.

    Raises:
        CheckpointError: the predictor does not know a worker.
    """
    unknown = [worker for worker in workers if worker not in predictor.workers]
    if unknown:
        raise CheckpointError(f"checkpoint {predictor.version!r} does not know the worker {unknown[0]!r}")
    columns = [predictor.columns[WorkerId(worker)] for worker in workers]
    found = predictor.predict(features)
    latency, spread = found.latency_s[:, columns], found.latency_log_sd
    log_sd = UNKNOWN_LOG_SD if spread is None else spread[columns]
    expected = Priced(
        quality=found.quality[:, columns],
        cost_usd=found.cost_usd[:, columns],
        latency_s=np.where(np.isnan(latency), UNKNOWN_LATENCY_S, latency),
        quality_sd=found.quality_sd[:, columns],
        latency_log_sd=np.broadcast_to(log_sd, latency.shape),
    )
    return EstimateArrays.of_known(expected, predictor.means[columns])


def _fill_cost(cost: np.ndarray, train: TrainingSet) -> np.ndarray:
    return np.where(np.isnan(cost), column_means(train.cost_usd), cost)


def _learn_penalty(bench: Benchmark, predictor: Checkpoint) -> float:
    """Learn the weight of cost that keeps the best single worker's quality, from out-of-fold predictions."""
    train = bench.train
    columns = [predictor.workers.index(worker) for worker in train.workers]
    expected = np.nan_to_num(_fill_cost(predictor.predict(train.features).cost_usd[:, columns], train))
    floor = float(column_means(train.quality)[train.best_single()])
    assert predictor.out_of_fold is not None
    return choose_penalty(predictor.out_of_fold[:, columns], expected, train.quality, train.cost_usd, floor=floor)


def _describe_trust(bench: Benchmark, predictor: Checkpoint, estimates: EstimateArrays) -> dict[str, object]:
    """Measure the coverage of the stated intervals, and the recovered gap of a pair of workers."""
    held_out, predicted = bench.held_out, estimates.expected
    costs, latencies = predictor.cover(bench.test)
    figures: dict[str, object] = {
        "coverage": Coverage(
            quality=_or_none(cover(gather_cells(predicted.quality, np.asarray(predicted.quality_sd), bench.test))),
            cost=_or_none(costs),
            latency=_or_none(latencies),
        )
    }
    if len(held_out.workers) == 2:
        strong = int(np.argmax(estimates.mean_quality[0]))
        figures["apgr"] = _or_none(gap_recovered(predicted.quality, held_out.quality, weak=1 - strong, strong=strong))
        figures["apgr_of"] = {
            kind: gap_recovered(predicted.quality[rows], held_out.quality[rows], weak=1 - strong, strong=strong)
            for kind, rows in _split_kinds(held_out).items()
        }
    return figures


def _split_kinds(held_out: Field) -> dict[str, np.ndarray]:
    kinds = np.array(held_out.kinds)
    return {str(kind): kinds == kind for kind in np.unique(kinds)}


def _note_margin(margin: float) -> str:
    if margin >= 1.0:
        return "never leaves the best single worker"
    return f"margin {margin:.3f}" if margin else ""


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def _predict_plain(bench: Benchmark, kind: str, z: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    if kind not in REGRESSORS:
        return Checkpoint.fit(kind, bench.train, rng=np.random.default_rng(0)).predict(bench.test.features).quality
    regressor = REGRESSORS[kind]()
    regressor.fit(z, bench.train.quality, bench.train.labels)
    return np.clip(regressor.predict(fresh), 0.0, 1.0)


def _make_field(data: RoutingData, test: TrainingSet, rows: np.ndarray) -> Field:
    split = split_repeats(data)
    halves = None
    if split is not None and not any(np.isnan(half[rows]).any() for half in split):
        halves = (split[0][rows], split[1][rows])
    names = {group: index for index, group in enumerate(dict.fromkeys(test.groups))}
    return Field(
        workers=tuple(test.workers),
        quality=test.quality,
        cost_usd=test.cost_usd,
        latency_s=test.latency_s,
        kinds=tuple(kind or "" for kind in test.kinds),
        groups=np.array([names[group] for group in test.groups]),
        halves=halves,
    )


def _task_means(bench: Benchmark) -> np.ndarray:
    """Return the mean training quality of each worker by label of the task; the worker's mean for unseen labels."""
    overall = np.nan_to_num(column_means(bench.train.quality))
    labels = np.array([kind or "" for kind in bench.train.kinds])
    means = {}
    for label in np.unique(labels):
        rows = bench.train.quality[labels == label]
        counts = (~np.isnan(rows)).sum(axis=0)
        sums = np.nan_to_num(column_means(rows)) * counts
        means[str(label)] = (sums + 5.0 * overall) / (counts + 5.0)
    return np.stack([means.get(kind, overall) for kind in bench.held_out.kinds])


def _majority(train: TrainingSet) -> int:
    """Find the worker that is most often the best."""
    best = np.nanmax(np.where(np.isnan(train.quality), -1.0, train.quality), axis=1, keepdims=True)
    shares = (train.quality == best).astype(float)
    return int(np.argmax((shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)).sum(axis=0)))


def _cheapest(train: TrainingSet) -> int:
    costs = column_means(train.cost_usd)
    return int(np.nanargmin(costs)) if not np.isnan(costs).all() else 0


def _or_nan(values: np.ndarray) -> np.ndarray:
    return values if not np.isnan(values).all() else np.zeros((1, 1))
