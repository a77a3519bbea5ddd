"""One data set, every baseline of the proof, on its held-out prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain import Features, Objective
from ripieno.domain.training import TrainingSet, column_means
from ripieno.errors import DataError
from ripieno.evaluate.report import (
    Entrant,
    Field,
    Report,
    Table,
    calibration_error,
    describe_costs,
    give_verdict,
)
from ripieno.route.predictors import KINDS, PairPredictor
from ripieno.route.utility import LCB_SDS, Scales, combine
from ripieno.tasks import RoutingData, make_training_set, split_repeats

BASELINE_KINDS = ("knn", "ridge", "clusters")
BEST_QUALITY = Objective(preference=1.0, preset="best", mission_criticality=0.0, time_criticality=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Benchmark:
    """A data set cut into what may be learned from and what is held out."""

    data: RoutingData
    train: TrainingSet
    test: TrainingSet
    held_out: Field
    test_rows: np.ndarray
    scales: Scales


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A finished benchmark: its report, and the router's own numbers on the held-out prompts."""

    report: Report
    probabilities: np.ndarray
    """Predicted quality, shape (t, m)."""


def prepare(data: RoutingData, features: Sequence[Features]) -> Benchmark:
    """Cut a data set by its own splits.

    Args:
        data: prompts, models and outcomes.
        features: features of all prompts, in order.

    Raises:
        DataError: a split is empty, or a held-out prompt lacks an outcome for every model.
    """
    train_rows, test_rows = data.split_rows("train"), data.split_rows("test")
    for name, rows in (("train", train_rows), ("test", test_rows)):
        if not len(rows):
            raise DataError(f"no prompt is in the split {name!r}", path=data.name, place="prompts, column split")
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
    """An ordinary price and an ordinary wait: the mean over workers of each one's mean, on the training tasks."""
    cost, latency = (np.nanmean(_or_nan(column_means(part)[None, :])) for part in (train.cost_usd, train.latency_s))
    default = Scales()
    return Scales(
        cost_usd=float(cost) if cost > 0 else default.cost_usd,
        latency_s=float(latency) if latency > 0 else default.latency_s,
    )


def judge(
    bench: Benchmark,
    predictor: PairPredictor,
    *,
    objective: Objective = BEST_QUALITY,
    baselines: Sequence[str] = BASELINE_KINDS,
    extra: Sequence[Entrant] = (),
    seed: int = 0,
) -> Judged:
    """Score the predictor beside every baseline on the held-out prompts.

    Args:
        bench: the data set, cut.
        predictor: fitted on `bench.train`, or loaded from a checkpoint of the same workers.
        objective: what the caller of the router wants; utility is measured for it.
        baselines: kinds of regressors to fit on the same vectors of the same training prompts, uncalibrated; their
            costs and uncertainties are the router's.
        extra: further entrants, each with shares over `bench.held_out.workers`.
        seed: of folds and intervals.
    """
    best = bench.train.best_single()
    table = Table(bench.held_out, best_single=best, objective=objective, scales=bench.scales)
    predicted = _predict(bench, predictor)
    entrants = [
        table.uniform(),
        table.always(_cheapest(bench.train), name="cheapest"),
        table.always(_majority(bench.train), name="majority label"),
        table.always(best, name="best single"),
        *extra,
        table.choose(_task_means(bench), name="task label", note="reads the label"),
    ]
    z, fresh = predictor.vectors(bench.train.features), predictor.vectors(bench.test.features)
    for kind in baselines:
        plain = _predict_plain(bench, kind, z, fresh)
        entrants.append(table.choose(_score(replace(predicted, quality=plain), objective, bench.scales), name=kind))
    entrants.append(table.choose(_score(predicted, objective, bench.scales), name="router"))
    entrants.append(table.oracle())
    lines = table.score(entrants, seed=seed)
    expected_cost = np.where(np.isnan(predicted.cost_usd), column_means(bench.train.cost_usd), predicted.cost_usd)
    figures = describe_costs(
        bench.held_out, scores=predicted.quality, expected_cost=np.nan_to_num(expected_cost), best_single=best
    )
    named = {line.name: line for line in lines}
    report = Report(
        name=bench.data.name,
        tasks=len(bench.test),
        train_tasks=len(bench.train),
        workers=bench.held_out.workers,
        best_single=bench.held_out.workers[best],
        lines=lines,
        verdict=give_verdict(named["router"], named["oracle"]),
        calibration_error=calibration_error(bench.held_out, predicted.quality),
        **figures,  # type: ignore[arg-type]  # the fields of a report, where costs are known
    )
    return Judged(report=report, probabilities=predicted.quality)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Predicted:
    quality: np.ndarray
    sd: np.ndarray
    cost_usd: np.ndarray
    latency_s: np.ndarray


def _predict(bench: Benchmark, predictor: PairPredictor) -> _Predicted:
    columns = [predictor.workers.index(worker) for worker in bench.train.workers]
    quality, sd, cost, latency = (part[:, columns] for part in predictor.estimate_many(bench.test.features))
    return _Predicted(quality=quality, sd=sd, cost_usd=cost, latency_s=latency)


def _predict_plain(bench: Benchmark, kind: str, z: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    regressor = KINDS[kind]()
    regressor.fit(z, bench.train.quality, bench.train.kinds)
    return np.clip(regressor.predict(fresh), 0.0, 1.0)


def _score(predicted: _Predicted, objective: Objective, scales: Scales) -> np.ndarray:
    """Utility of the estimates; unknown costs and latencies count as none."""
    bound = LCB_SDS * objective.mission_criticality / 10.0
    quality = np.maximum(predicted.quality - bound * predicted.sd, 0.0)
    cost, latency = np.nan_to_num(predicted.cost_usd), np.nan_to_num(predicted.latency_s)
    price = np.vectorize(lambda q, c, s: combine(q, c, s, objective=objective, scales=scales))
    return np.asarray(price(quality, cost, latency))


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
    """Mean training quality of each worker on tasks of the same label; the worker's own mean for unseen labels."""
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
    """The worker that is most often a best one."""
    best = np.nanmax(np.where(np.isnan(train.quality), -1.0, train.quality), axis=1, keepdims=True)
    shares = (train.quality == best).astype(float)
    return int(np.argmax((shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)).sum(axis=0)))


def _cheapest(train: TrainingSet) -> int:
    costs = column_means(train.cost_usd)
    return int(np.nanargmin(costs)) if not np.isnan(costs).all() else 0


def _or_nan(values: np.ndarray) -> np.ndarray:
    return values if not np.isnan(values).all() else np.zeros((1, 1))
