"""Predictors learn: over seeds, against plain forms and against the best single worker."""

from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import MakeWorker

from ripieno.analyze import Analyzer
from ripieno.domain import Price, WorkerId
from ripieno.domain.task import Task
from ripieno.domain.training import TrainingSet
from ripieno.encoders.static import StaticEncoder
from ripieno.route.predictors import KINDS, Checkpoint, Estimator
from ripieno.route.predictors.calibration import apply_beta, expected_calibration_error, fit_beta
from ripieno.route.predictors.featurizer import Featurizer
from ripieno.route.predictors.pair import assign_folds
from ripieno.route.predictors.regressors import KnnRegressor, RidgeRegressor, shrunk_effects, shrunk_means
from ripieno.testing import check_predictor

TOPICS = {
    "cook": "How long should I cook {n} grams of {x} in the oven?",
    "code": "Write a Python function that sorts {n} {x} objects by name.",
    "law": "Which law governs the sale of {n} {x} between companies?",
}
THINGS = ["rice", "beans", "apples", "carrots", "fish", "bread", "cheese", "pasta", "onions", "lentils", "walnuts"]
SKILL = {"cook": (0.9, 0.2, 0.5), "code": (0.1, 0.9, 0.5), "law": (0.2, 0.3, 0.5)}


async def make_world(seed: int, count: int = 240) -> TrainingSet:
    """Three kinds of questions, three workers: each of two is best at one kind, the third is even."""
    rng = np.random.default_rng(seed)
    kinds = [list(TOPICS)[int(i)] for i in rng.integers(3, size=count)]
    texts = [TOPICS[kind].format(n=int(rng.integers(9000)), x=THINGS[int(rng.integers(len(THINGS)))]) for kind in kinds]
    analyzer = Analyzer(StaticEncoder())
    features = await analyzer.analyze_many([Task.from_text(t, kind=k) for t, k in zip(texts, kinds, strict=True)])
    truth = np.array([SKILL[kind] for kind in kinds])
    quality = (rng.random(truth.shape) < truth).astype(float)
    cost = np.exp(rng.normal(size=truth.shape) * 0.1) * np.array([1e-3, 1e-2, 1e-4])
    return TrainingSet(
        features=tuple(features), workers=tuple(WorkerId(w) for w in ("chef", "coder", "even")), quality=quality,
        counts=np.ones_like(quality), cost_usd=cost, latency_s=cost * 100, groups=tuple(texts),
    )  # fmt: skip


@pytest.mark.simulation
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_each_kind_beats_the_best_single_worker_over_five_seeds(kind: str) -> None:
    gains = []
    for seed in range(5):
        world, fresh = await make_world(seed), await make_world(seed + 100)
        checkpoint = Checkpoint.fit(kind, world, rng=np.random.default_rng(seed))
        found = checkpoint.predict(fresh.features)
        quality, sd, cost = found.quality, found.quality_sd, found.cost_usd
        truth = np.array([SKILL[str(k)] for k in fresh.kinds])
        best = truth[:, world.best_single()].mean()
        gains.append(truth[np.arange(len(fresh)), quality.argmax(axis=1)].mean() - best)
        assert np.abs(quality - truth).mean() < 0.15
        assert ((sd > 0) & (sd <= 0.5)).all()
        assert np.abs(np.log(cost / fresh.cost_usd)).mean() < 0.3
        assert checkpoint.metrics["ece"] < 0.1
    assert np.mean(gains) - 1.96 * np.std(gains) / np.sqrt(5) > 0.1


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_saved_state_estimates_the_same(kind: str, make_worker: MakeWorker) -> None:
    world = await make_world(1)
    checkpoint = Checkpoint.fit(kind, world, rng=np.random.default_rng(0))
    again = Estimator(Checkpoint.restore(kind, world.workers, checkpoint.arrays(), version="v1"))
    workers = [make_worker(str(name)) for name in (*world.workers, "newcomer")]
    check_predictor(again, workers, features=world.features[0])
    found = again.forecast(world.features[0], workers).estimates
    assert found == Estimator(checkpoint).forecast(world.features[0], workers).estimates
    newcomer = found[-1]
    assert (newcomer.is_measured, newcomer.quality_sd) == (False, 0.3)


async def test_workers_may_be_unmeasured_on_some_tasks() -> None:
    world = await make_world(3)
    holes = np.random.default_rng(0).random(world.quality.shape) < 0.5
    holes[:, 2] = False
    quality = np.where(holes, np.nan, world.quality)
    unknown = np.full_like(quality, np.nan)
    sparse = TrainingSet(
        features=world.features, workers=world.workers, quality=quality, counts=(~holes).astype(float),
        cost_usd=unknown, latency_s=unknown, groups=world.groups,
    )  # fmt: skip
    expected = Checkpoint.fit("stack", sparse, rng=np.random.default_rng(0)).predict((await make_world(103)).features)
    found, sd, cost = expected.quality, expected.quality_sd, expected.cost_usd
    truth = np.array([SKILL[str(k)] for k in (await make_world(103)).kinds])
    assert np.abs(found - truth).mean() < 0.2
    assert np.isnan(cost).all()
    whole = Checkpoint.fit("stack", world, rng=np.random.default_rng(0))
    assert sd[:, 0].mean() > 1.1 * whole.predict(world.features).quality_sd[:, 0].mean(), (
        "half the samples, less certain"
    )


def test_ridge_agrees_with_the_textbook() -> None:
    rng = np.random.default_rng(2)
    z, y = rng.normal(size=(40, 5)), rng.random((40, 2))
    y[::3, 1] = np.nan
    ridge = RidgeRegressor()
    ridge.fit(z, y, [None] * 40)
    base, centre, fresh = shrunk_means(y), z.mean(axis=0), rng.normal(size=(4, 5))
    for column in range(2):
        rows = ~np.isnan(y[:, column])
        design, target = z[rows] - centre, y[rows, column] - base[column]
        weights = np.linalg.inv(design.T @ design + 30.0 * np.eye(5)) @ design.T @ target
        np.testing.assert_allclose(
            ridge.predict(fresh)[:, column], base[column] + (fresh - centre) @ weights, atol=1e-10
        )


def test_neighbours_agree_with_a_loop() -> None:
    rng = np.random.default_rng(4)
    z, y = rng.normal(size=(200, 4)), rng.random((200, 2))
    knn = KnnRegressor()
    knn.fit(z, y, [None] * 200)
    query = rng.normal(size=(1, 4))
    unit, base = z / np.linalg.norm(z, axis=1, keepdims=True), shrunk_means(y)
    closeness = unit @ (query[0] / np.linalg.norm(query))
    nearest = np.argsort(-closeness)[:80]
    weights = np.exp((closeness[nearest] - closeness.max()) / 0.1)
    mean = weights @ (y[nearest] - base) / weights.sum()
    effective = weights.sum() ** 2 / (weights**2).sum()
    np.testing.assert_allclose(knn.predict(query)[0], base + mean * effective / (effective + 20.0), atol=1e-5)


def test_shrinkage_pulls_small_cells_to_zero() -> None:
    y = np.array([[1.0], [1.0], [0.0], [np.nan]])
    assert shrunk_means(y)[0] == pytest.approx(2 / 3)
    shares = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    thin = shrunk_effects(shares, y)
    assert thin[0, 0] == pytest.approx((1 - 2 / 3) / (1 + 200)), "one sample shows no variance between groups"
    rng = np.random.default_rng(0)
    which = np.eye(4)[np.arange(400) % 4]
    real, luck = which @ np.array([[0.3], [-0.3], [0.2], [-0.2]]), np.zeros((400, 1))
    noise = rng.normal(size=(400, 1)) * 0.4
    assert np.abs(shrunk_effects(which, 0.5 + real + noise)).mean() > 0.2
    assert np.abs(shrunk_effects(which, 0.5 + luck + noise)).mean() < 0.02
    assert shrunk_means(np.full((2, 1), np.nan))[0] == 0.0


def test_calibration_repairs_overconfidence_and_keeps_the_order() -> None:
    rng = np.random.default_rng(6)
    truth = rng.uniform(0.2, 0.8, size=(40_000, 1))
    outcome = (rng.random(truth.shape) < truth).astype(float)
    raw = 1.0 / (1.0 + ((1.0 - truth) / truth) ** 2.5)
    coefficients = fit_beta(raw, outcome)
    fixed = apply_beta(coefficients, raw)
    assert expected_calibration_error(np.clip(raw, 0, 1), outcome) > 0.1
    assert expected_calibration_error(fixed, outcome) < 0.015, "what 40,000 coins leave to chance"
    grid = np.linspace(-0.3, 1.3, 200)
    mapped = apply_beta(coefficients, grid)
    assert (np.diff(mapped) > 0).all()
    assert ((mapped > 0) & (mapped < 1)).all()


def test_calibration_changes_nothing_without_enough_outcomes() -> None:
    assert fit_beta(np.full((5, 1), 0.4), np.ones((5, 1))).tolist() == [1.0, 1.0, 0.0]
    backwards = np.linspace(0.1, 0.9, 200)[:, None]
    assert fit_beta(backwards, 1.0 - backwards).tolist() == [1.0, 1.0, 0.0]
    assert np.isnan(expected_calibration_error(np.zeros((1, 1)), np.full((1, 1), np.nan)))


def test_folds_keep_groups_together() -> None:
    groups = [f"g{i % 37}" for i in range(400)]
    folds = assign_folds(groups, rng=np.random.default_rng(0))
    assert len({(g, int(f)) for g, f in zip(groups, folds, strict=True)}) == 37
    assert set(folds.tolist()) == {0, 1, 2, 3, 4}


async def test_training_works_with_very_few_tasks() -> None:
    world = await make_world(1, count=6)
    for kind in KINDS:
        checkpoint = Checkpoint.fit(kind, world, rng=np.random.default_rng(0))
        assert np.isfinite(checkpoint.predict(world.features).quality).all()
    alike = replace(world, groups=("one template",) * 6)
    lonely = Checkpoint.fit("stack", alike, rng=np.random.default_rng(0))
    assert np.isfinite(lonely.predict(world.features).quality).all(), "one group cannot be held out, and need not be"
    assert Featurizer.fit(world.features).transform(world.features).shape[0] == 6


async def test_the_length_of_answers_prices_workers_whose_costs_were_not_measured(make_worker: MakeWorker) -> None:
    world = await make_world(11)
    lengths = np.tile([50.0, 400.0, 1000.0], (len(world), 1)) * np.exp(
        np.random.default_rng(0).normal(size=(240, 3)) / 9
    )
    told = replace(world, output_tokens=lengths, cost_usd=np.full_like(world.cost_usd, np.nan))
    checkpoint = Checkpoint.fit("ridge", told, rng=np.random.default_rng(0))
    price = Price(output_usd_per_mtok=1e6)
    workers = [make_worker(name, price=price) for name in (*world.workers, "coder-next")]
    found = Estimator(checkpoint).forecast(world.features[0], workers).estimates
    assert [e.output_tokens for e in found[:3]] == pytest.approx([50.0, 400.0, 1000.0], rel=0.1)
    assert [e.cost_usd for e in found[:3]] == pytest.approx([50.0, 400.0, 1000.0], rel=0.1)
    assert found[3].cost_usd == pytest.approx(found[3].output_tokens)
    again = Checkpoint.restore("ridge", checkpoint.workers, checkpoint.arrays(), version="v")
    assert Estimator(again).forecast(world.features[0], workers).estimates == found
