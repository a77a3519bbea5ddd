"""Cold start: a planted low-rank world, where a few probes must say more than raw means do."""

from dataclasses import replace

import numpy as np
import pytest
from tests.learning.test_predictors import make_world

from ripieno.domain import WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.errors import DataError
from ripieno.evaluate.newcomers import leave_one_out
from ripieno.route.predictors.newcomer import NewcomerPrior

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


async def test_five_probes_say_more_than_the_pool_and_fifty_come_within_a_tenth() -> None:
    train, test = await make_sets()
    lines = {line.probes: line for line in leave_one_out(train, test, probes=(0, 5, 50), seeds=(0, 1, 2))}
    assert lines[5].rmse < 0.8 * lines[0].rmse
    assert lines[5].rmse < 0.7 * lines[5].rmse_raw
    assert lines[50].rmse <= 0.10
    assert all(line.regret <= 0.02 for line in lines.values())
    assert lines[0].rmse_pool == lines[5].rmse_pool
    assert 0.7 <= lines[50].coverage <= 0.95


def test_a_probe_in_one_kind_speaks_of_kinds_that_go_with_it_and_against_those_that_do_not() -> None:
    which, quality = make_outcomes(1, tasks=2000)
    prior = NewcomerPrior(which, quality)
    blank = prior.predict(prior.update([], []))[0]
    rows = np.flatnonzero(which == 0)[:30]
    strong = prior.predict(prior.update(rows.tolist(), [1.0] * 30))[0]
    weak = prior.predict(prior.update(rows.tolist(), [0.0] * 30))[0]
    assert strong[0] > blank[0] > weak[0]
    together = prior.covariance[0] / np.sqrt(np.diag(prior.covariance) * prior.covariance[0, 0])
    for kind in range(1, KINDS):
        if abs(together[kind]) > 0.5:
            assert (strong[kind] > weak[kind]) == (together[kind] > 0)


def test_probes_are_asked_once_and_settle_the_kind_where_the_newcomer_could_win() -> None:
    which, quality = make_outcomes(1)
    prior = NewcomerPrior(which, quality[:, 1:4])  # too few to know which kinds go together
    spent = {}
    for open_kind in (2, 9):
        rivals, rng, asked = np.full(KINDS, 5.0), np.random.default_rng(0), list[int]()
        rivals[open_kind] = quality[which == open_kind, 0].mean()
        for _ in range(25):
            posterior = prior.update(asked, quality[asked, 0])
            row = prior.choose_probe(posterior, asked=set(asked), rivals=rivals, rng=rng)
            assert row not in asked
            asked.append(row)
        spent[open_kind] = np.bincount(which[asked], minlength=KINDS)
    assert spent[2][2] > spent[9][2]
    assert spent[9][9] > spent[2][9]


def test_the_posterior_agrees_with_a_grid() -> None:
    """One kind: the Laplace mean is within 0.1 of the exact mode on a fine grid."""
    which, quality = np.zeros(40, dtype=np.int64), make_outcomes(1, tasks=40)[1]
    prior = NewcomerPrior(which, quality)
    met = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    posterior = prior.update(range(6), met)
    grid = np.linspace(-6, 6, 24001)
    p = 1.0 / (1.0 + np.exp(-(grid[:, None] - prior.difficulty[:6])))
    log = (met * np.log(p) + (1 - met) * np.log(1 - p)).sum(axis=1) - (grid - prior.mean[0]) ** 2 / (
        2 * prior.covariance[0, 0]
    )
    assert abs(posterior.ability[0] - grid[np.argmax(log)]) < 1e-3


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
