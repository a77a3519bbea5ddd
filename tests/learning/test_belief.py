"""Cold start: a planted low-rank world, where a few probes must say more than raw means do."""

from dataclasses import replace

import numpy as np
import pytest
from tests.learning.test_predictors import make_world

from ripieno.domain import WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.errors import DataError
from ripieno.evaluate.newcomers import leave_one_out
from ripieno.route.predictors.belief import (
    Belief,
    choose_probe,
    learn_prior,
    pooled_quality,
    summarise_groups,
    to_logit,
)
from ripieno.route.predictors.regressors import sigmoid

KINDS, WORKERS = 10, 12


def make_outcomes(seed: int, tasks: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Kind of each task and outcomes of workers whose abilities lie along two directions."""
    rng = np.random.default_rng(11)
    directions, strengths = rng.normal(size=(2, KINDS)), rng.normal(size=(WORKERS, 2))
    abilities = strengths @ directions + rng.normal(size=(WORKERS, KINDS)) * 0.3
    drawn = np.random.default_rng(seed)
    which, hard = drawn.integers(KINDS, size=tasks), drawn.normal(size=tasks)
    p = 1.0 / (1.0 + np.exp(-(abilities[:, which].T - hard[:, None])))
    return which, (drawn.random(p.shape) < p).astype(float)


async def make_sets() -> tuple[TrainingSet, TrainingSet]:
    features = (await make_world(0, count=1)).features
    sets = []
    for seed in (1, 2):
        which, quality = make_outcomes(seed)
        unknown = np.full_like(quality, np.nan)
        tasks = tuple(replace(features[0], kind=f"k{kind}") for kind in which)
        sets.append(
            TrainingSet(
                features=tasks,
                workers=tuple(WorkerId(f"w{i}") for i in range(WORKERS)),
                quality=quality,
                counts=np.ones_like(quality),
                cost_usd=unknown,
                latency_s=unknown,
                groups=tuple(str(i) for i in range(len(which))),
            )
        )
    return sets[0], sets[1]


async def test_five_probes_beat_the_pool_mean_and_fifty_predict_within_a_tenth() -> None:
    train, test = await make_sets()
    lines = {line.probes: line for line in leave_one_out(train, test, probes=(0, 5, 50), seeds=(0, 1, 2))}
    assert lines[5].rmse < 0.8 * lines[0].rmse
    assert lines[5].rmse < 0.7 * lines[5].rmse_raw
    assert lines[50].rmse <= 0.10
    assert all(line.regret <= 0.02 for line in lines.values())
    assert lines[0].rmse_pool == lines[5].rmse_pool
    assert 0.7 <= lines[50].coverage <= 0.95


def fold(belief: Belief, weights: np.ndarray, expected: np.ndarray, rows: np.ndarray, met: list[float]) -> Belief:
    for row, outcome in zip(rows.tolist(), met, strict=True):
        belief = belief.update(weights[row], float(expected[row]), outcome)
    return belief


def test_a_probe_in_one_kind_moves_the_correlated_kinds() -> None:
    which, quality = make_outcomes(1, tasks=2000)
    weights, expected = np.eye(KINDS)[which], pooled_quality(quality)
    prior = learn_prior(weights, quality)
    rows = np.flatnonzero(which == 0)[:30]
    blank = summarise_groups(prior, weights, expected)[0]
    strong = summarise_groups(fold(prior, weights, expected, rows, [1.0] * 30), weights, expected)[0]
    weak = summarise_groups(fold(prior, weights, expected, rows, [0.0] * 30), weights, expected)[0]
    assert strong[0] > blank[0] > weak[0]
    together = prior.covariance[0] / np.sqrt(np.diag(prior.covariance) * prior.covariance[0, 0])
    for kind in range(1, KINDS):
        if abs(together[kind]) > 0.5:
            assert (strong[kind] > weak[kind]) == (together[kind] > 0)


def test_no_probe_repeats_and_probes_settle_the_kind_that_the_newcomer_could_win() -> None:
    which, quality = make_outcomes(1)
    weights, expected = np.eye(KINDS)[which], pooled_quality(quality[:, 1:4])
    spent = {}
    for open_kind in (2, 9):
        belief = learn_prior(weights, quality[:, 1:4])  # too few to know which kinds go together
        rivals, rng, asked = np.full(KINDS, 5.0), np.random.default_rng(0), list[int]()
        rivals[open_kind] = quality[which == open_kind, 0].mean()
        for _ in range(60):
            row = choose_probe(belief, weights, expected, rivals=rivals, asked=set(asked), rng=rng)
            belief = belief.update(weights[row], float(expected[row]), float(quality[row, 0]))
            assert row not in asked
            asked.append(row)
        spent[open_kind] = np.bincount(which[asked], minlength=KINDS)
    assert spent[2][2] > spent[9][2]
    assert spent[9][9] > spent[2][9]


def test_sequential_updates_approximate_the_exact_posterior() -> None:
    """One kind, sixty outcomes: the mean is within a third of a standard deviation of a fine grid's."""
    which, quality = np.zeros(60, dtype=np.int64), make_outcomes(1, tasks=60)[1]
    weights, expected = np.eye(1)[which], pooled_quality(quality)
    prior = learn_prior(weights, quality)
    met = (np.random.default_rng(3).random(60) < 0.6).astype(float)
    belief = fold(prior, weights, expected, np.arange(60), met.tolist())
    grid = np.linspace(-6, 6, 24001)
    p = sigmoid(grid[:, None] + to_logit(expected))
    log = (met * np.log(p) + (1 - met) * np.log(1 - p)).sum(axis=1) - (grid - prior.mean[0]) ** 2 / (
        2 * prior.covariance[0, 0]
    )
    density = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    mean = float(grid @ density)
    sd = float(np.sqrt((grid - mean) ** 2 @ density))
    assert abs(belief.mean[0] - mean) < sd / 3
    assert abs(np.sqrt(belief.covariance[0, 0]) - sd) < sd / 3


async def test_too_few_workers_cannot_be_left_out() -> None:
    world = await make_world(0, count=60)
    with pytest.raises(DataError, match="no kind of task has 20 held-out tasks"):
        leave_one_out(world, world.take(np.arange(10)))
    two = TrainingSet(
        features=world.features, workers=world.workers[:2], quality=world.quality[:, :2], counts=world.counts[:, :2],
        cost_usd=world.cost_usd[:, :2], latency_s=world.latency_s[:, :2], groups=world.groups,
    )  # fmt: skip
    with pytest.raises(DataError, match="too few to leave one out"):
        leave_one_out(two, two)


def test_a_small_pool_gives_a_wide_prior() -> None:
    which, quality = make_outcomes(1)
    weights = np.eye(KINDS)[which]
    alone = learn_prior(weights, quality[:, :1])
    assert (alone.mean == 0.0).all()
    assert (alone.covariance == np.eye(KINDS)).all()
    few = learn_prior(weights, quality[:, :3])
    assert (np.diag(few.covariance) >= 1.0).all()
    assert (few.covariance == np.diag(np.diag(few.covariance))).all()
