"""Leave-one-worker-out test: how well a few probes predict a worker, and the regret of routing by them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.domain.report import Report, number
from ripieno.domain.training import TrainingSet, column_means
from ripieno.errors import DataError
from ripieno.route.predictors.belief import choose_probe, learn_prior, pooled_quality, summarise_groups

PROBES = (0, 5, 10, 20, 50, 100)
LEAST_CELL = 20
"""Least held-out tasks of a kind whose accuracy is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLine:
    """Results for one number of probes, averaged over left-out workers and seeds."""

    probes: int
    rmse: float
    """Error of the predicted accuracy in each kind of task, against the held-out one."""
    rmse_raw: float
    """Error of the mean of the probes in each kind, or of the pool's mean if there is none."""
    rmse_pool: float
    """Error of the pool's mean in each kind, which needs no probe."""
    regret: float
    """Lost held-out quality of routing with these beliefs, against routing with all outcomes, in [0, 1]."""
    coverage: float
    """Share of kinds whose accuracy lies in the 80 % interval."""


_COLUMNS = (
    number("probes"), number("rmse", "RMSE", spec=".3f"), number("rmse_raw", "RMSE of raw means", spec=".3f"),
    number("rmse_pool", "RMSE of the pool's mean", spec=".3f"), number("regret", spec=".2%"),
    number("coverage", "80 % cover", spec=".0%"),
)  # fmt: skip


def tabulate_probes(lines: Sequence[ProbeLine], name: str) -> Report:
    """Lay out the results of leaving each worker out."""
    title = f"{name}: each worker left out in turn, three seeds; error of its accuracy in each kind of task"
    return Report(title=title, columns=_COLUMNS, rows=lines)


def leave_one_out(
    train: TrainingSet, test: TrainingSet, *, probes: Sequence[int] = PROBES, seeds: Sequence[int] = (0,)
) -> list[ProbeLine]:
    """Measure the cold start by leaving out each worker of a data set.

    Raises:
        DataError: there are fewer than three workers, or no kind has enough held-out tasks.
    """
    if len(train.workers) < 3:
        raise DataError(f"{len(train.workers)} workers are too few to leave one out", path="models.parquet")
    labels = np.array([kind or "" for kind in train.kinds])
    fresh = np.array([kind or "" for kind in test.kinds])
    kinds = [name for name in np.unique(labels) if (fresh == name).sum() >= LEAST_CELL]
    if not kinds:
        raise DataError(f"no kind of task has {LEAST_CELL} held-out tasks", path="prompts.parquet")
    rows, held_out = np.flatnonzero(np.isin(labels, kinds)), np.flatnonzero(np.isin(fresh, kinds))
    which = np.searchsorted(kinds, labels[rows])
    fresh_which = np.searchsorted(kinds, fresh[held_out])
    field = _Field(which=which, quality=train.quality[rows], truth=_cells(fresh_which, test.quality[held_out]),
                   shares=np.bincount(fresh_which, minlength=len(kinds)) / len(held_out))  # fmt: skip
    found: dict[int, list[tuple[float, ...]]] = {count: [] for count in probes}
    for worker in range(len(train.workers)):
        for seed in seeds:
            for count, measured in _try_worker(field, worker, probes, seed=seed):
                found[count].append(measured)
    means = {count: np.mean(values, axis=0).tolist() for count, values in found.items()}
    names = ("rmse", "rmse_raw", "rmse_pool", "regret", "coverage")
    return [ProbeLine(probes=count, **dict(zip(names, mean, strict=True))) for count, mean in means.items()]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Field:
    which: np.ndarray
    quality: np.ndarray
    truth: np.ndarray
    """Held-out mean of each worker in each kind, shape (k, m)."""
    shares: np.ndarray


def _try_worker(field: _Field, worker: int, probes: Sequence[int], *, seed: int) -> list[tuple[int, tuple[float, ...]]]:
    others = np.delete(np.arange(field.quality.shape[1]), worker)
    weights, expected = np.eye(len(field.shares))[field.which], pooled_quality(field.quality[:, others])
    belief = learn_prior(weights, field.quality[:, others])
    known = _cells(field.which, field.quality)
    rivals = known[:, others].max(axis=1)
    pool = known[:, others].mean(axis=1)
    answers, truth = field.quality[:, worker], field.truth[:, worker]
    full = _routed(field, known[:, others], known[:, worker], others, worker)
    rng = np.random.default_rng(seed)
    asked: list[int] = []
    results: list[tuple[int, tuple[float, ...]]] = []
    for count in sorted(probes):
        while len(asked) < count:
            row = choose_probe(belief, weights, expected, rivals=rivals, asked=set(asked), rng=rng)
            belief = belief.update(weights[row], expected[row], answers[row])
            asked.append(row)
        met, sd, _ = summarise_groups(belief, weights, expected)
        raw = _raw_means(field.which[asked], answers[asked], pool)
        routed = _routed(field, known[:, others], met, others, worker)
        inside = np.abs(met - truth) <= 1.2816 * np.sqrt(sd**2 + truth * (1 - truth) / LEAST_CELL / 4)
        results.append((count, (_rmse(met, truth), _rmse(raw, truth), _rmse(pool, truth), full - routed,
                                float(inside.mean()))))  # fmt: skip
    return results


def _routed(field: _Field, known: np.ndarray, newcomer: np.ndarray, others: np.ndarray, worker: int) -> float:
    """Return the held-out quality of taking the worker with the highest believed quality in each kind."""
    beliefs = np.concatenate([known, newcomer[:, None]], axis=1)
    columns = np.append(others, worker)[np.argmax(beliefs, axis=1)]
    return float(field.shares @ field.truth[np.arange(len(columns)), columns])


def _cells(which: np.ndarray, quality: np.ndarray) -> np.ndarray:
    return np.stack([column_means(quality[which == kind]) for kind in range(int(which.max()) + 1)])


def _raw_means(which: np.ndarray, answers: np.ndarray, pool: np.ndarray) -> np.ndarray:
    counts = np.bincount(which, minlength=len(pool))
    return np.where(counts > 0, np.bincount(which, answers, len(pool)) / np.maximum(counts, 1), pool)


def _rmse(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - truth) ** 2)))
