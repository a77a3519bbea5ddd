"""The parts of the default predictor, each against a plain form or a planted truth."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from tests.learning.test_predictors import make_world

from ripieno.errors import ConfigError
from ripieno.route.predictors import Checkpoint
from ripieno.route.predictors.alternatives import BoostingRegressor, LogisticRegressor
from ripieno.route.predictors.guard import NEVER, choose_margin
from ripieno.route.predictors.kinds import KindRegressor
from ripieno.route.predictors.lowrank import PRECISIONS, LowRankRegressor
from ripieno.route.predictors.pair import draw_folds
from ripieno.route.predictors.regressors import RidgeRegressor, shrunk_means
from ripieno.route.predictors.scale import ScaleRegressor
from ripieno.route.predictors.stack import StackRegressor, split_common
from ripieno.route.predictors.uncertainty import cover, gather_cells


def test_low_rank_ridge_agrees_with_a_plain_cross_validation() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 6))
    y = z @ rng.normal(size=(6, 1)) @ rng.normal(size=(1, 4)) * 0.3 + rng.normal(size=(60, 4)) * 0.5
    fitted = LowRankRegressor()
    fitted.fit(z, y, [None] * 60)
    base, centre = shrunk_means(y), z.mean(axis=0)
    _, directions = np.linalg.eigh((y - base).T @ (y - base))
    design, predicted = z - centre, np.zeros((60, 4))
    for direction in directions.T:
        target = (y - base) @ direction
        best = (float(target @ target) / (1 - 1 / 60) ** 2, np.zeros(60))
        for precision in PRECISIONS:
            hat = design @ np.linalg.solve(design.T @ design + precision * np.eye(6), design.T)
            left = target - hat @ target
            best = min(best, (float(left @ left) / (1 - (np.trace(hat) + 1) / 60) ** 2, hat @ target),
                       key=lambda pair: pair[0])  # fmt: skip
        predicted += np.outer(best[1], direction)
    np.testing.assert_allclose(fitted.predict(z), base + predicted, atol=1e-8)


def test_low_rank_ridge_shrinks_noise_that_a_plain_ridge_follows() -> None:
    rng = np.random.default_rng(1)
    z, luck = rng.normal(size=(200, 30)), rng.normal(size=(200, 12))
    fitted, plain = LowRankRegressor(), RidgeRegressor()
    for regressor in (fitted, plain):
        regressor.fit(z, luck, [None] * 200)
    fresh = rng.normal(size=(500, 30))
    assert fitted.predict(fresh).std(axis=0).mean() < 0.3 * plain.predict(fresh).std(axis=0).mean()


def test_common_and_relative_parts_add_up_to_the_measured_quality() -> None:
    rng = np.random.default_rng(2)
    y = rng.random((50, 5))
    y[rng.random(y.shape) < 0.3] = np.nan
    common, relative = split_common(y)
    np.testing.assert_allclose(common + relative, y)
    whole = rng.random((50, 5))
    _, rest = split_common(whole)
    np.testing.assert_allclose((rest - shrunk_means(whole)).sum(axis=1), 0.0, atol=1e-12)


async def test_task_difficulty_does_not_hide_differences_between_workers() -> None:
    """Difficulty that moves all workers alike takes no share from the part that tells them apart."""
    world = await make_world(5)
    z = np.stack([f.embedding for f in world.features]).astype(float)
    hard = np.random.default_rng(0).normal(size=(len(world), 1)) * 2.0
    plain, shifted = StackRegressor(), StackRegressor()
    folds = draw_folds(world.groups, rng=np.random.default_rng(0))
    plain.cross_fit(z, world.quality, world.kinds, folds)
    shifted.cross_fit(z, world.quality + hard, world.kinds, folds)
    assert plain.relative.weights.keys() == {"lowrank", "knn", "clusters", "kinds"}
    for name, weight in plain.relative.weights.items():
        assert abs(weight - shifted.relative.weights[name]) < 0.05


def test_the_guard_leaves_the_incumbent_for_skill_and_not_for_luck() -> None:
    rng = np.random.default_rng(3)
    folds = [draw_folds([str(i) for i in range(600)], rng=rng)]
    flat = np.full((600, 8), 0.6)
    flat[:, 3] = 0.75
    quality = (rng.random(flat.shape) < flat).astype(float)
    assert choose_margin([flat + rng.normal(0.0, 0.2, size=flat.shape)], quality, folds) >= 0.15
    skill = np.where(rng.random((600, 2)) < 0.5, 0.9, 0.3)
    skill[:, 1] = 1.2 - skill[:, 0]
    assert choose_margin([skill], (rng.random(skill.shape) < skill).astype(float), folds) == 0.0
    wrong = choose_margin([1.0 - skill], (rng.random(skill.shape) < skill).astype(float), folds)
    assert wrong == NEVER


@pytest.mark.simulation
async def test_intervals_of_group_means_have_their_stated_coverage() -> None:
    """Eight seeds of fresh tasks make 72 cells: three standard errors of a binomial are 14 points."""
    cells = []
    for seed in range(8):
        world, fresh = await make_world(seed), await make_world(seed + 200)
        found = Checkpoint.fit("stack", world, rng=np.random.default_rng(seed)).predict(fresh.features)
        quality, sd = found.quality, found.quality_sd
        cells.append(gather_cells(quality, sd, fresh))
    assert 0.66 <= cover(np.concatenate(cells)) <= 0.94
    assert np.isnan(cover(np.zeros((0, 4))))


def test_costs_are_lognormal_with_their_mean_and_tails() -> None:
    rng = np.random.default_rng(4)
    z = rng.normal(size=(4000, 2))
    truth = np.exp(0.5 * z[:, :1] - 6.0)
    noise = rng.normal(size=(4000, 1)) * 0.8
    rows = np.arange(4000)
    folds = [(rows[rows % 5 != fold], rows[rows % 5 == fold]) for fold in range(5)]
    fitted = ScaleRegressor.fit(z, truth * np.exp(noise), folds=folds)
    assert fitted is not None
    np.testing.assert_allclose(np.median(fitted.median(z) / truth), 1.0, atol=0.05)
    np.testing.assert_allclose(np.median(fitted.mean(z) / truth), np.exp(0.8**2 / 2), rtol=0.06)
    left = np.log(truth) + rng.normal(size=(4000, 1)) * 0.8 - np.log(fitted.median(z))
    assert abs(((left >= fitted.tails[0]) & (left <= fitted.tails[1])).mean() - 0.8) < 0.03
    np.testing.assert_allclose(
        fitted.median(z) * np.exp(fitted.tails[0]), fitted.mean(z) * np.exp(fitted.mean_tails[0])
    )
    assert ScaleRegressor.fit(z, np.full((4000, 1), np.nan), folds=folds) is None


async def test_kinds_are_read_from_the_text() -> None:
    world, fresh = await make_world(6), await make_world(106)
    regressor = KindRegressor()
    regressor.fit(np.stack([f.embedding for f in world.features]).astype(float), world.quality, world.kinds)
    shares = regressor.classify(np.stack([f.embedding for f in fresh.features]).astype(float))
    found = np.array(sorted(set(map(str, world.kinds))))[shares.argmax(axis=1)]
    assert (found == np.array(fresh.kinds)).mean() > 0.95
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    two = [kind if kind == "cook" else "other" for kind in world.kinds]
    regressor.fit(np.stack([f.embedding for f in world.features]).astype(float), world.quality, two)
    assert regressor.classify(np.stack([f.embedding for f in fresh.features]).astype(float)).shape == (240, 2)


async def test_domains_refine_kinds_and_travel_with_their_rows() -> None:
    world = await make_world(7)
    finer = replace(world, domains=tuple("even" if i % 2 else "odd" for i in range(len(world))))
    assert finer.labels[1] == f"{world.kinds[1]}/even"
    assert finer.take(np.array([1, 0])).labels == (finer.labels[1], finer.labels[0])
    assert world.labels == world.kinds
    with pytest.raises(ValueError, match="domains must name 240 tasks, got 1"):
        replace(world, domains=("odd",))


async def test_a_mix_without_held_out_tasks_takes_equal_shares() -> None:
    world = await make_world(8, count=40)
    stack = StackRegressor()
    stack.fit(np.stack([f.embedding for f in world.features]).astype(float), world.quality, world.kinds)
    assert set(stack.relative.weights.values()) == {0.25}
    assert set(stack.common.weights.values()) == {0.5}


def test_boosted_trees_name_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ConfigError, match="needs the package 'lightgbm'") as caught:
        BoostingRegressor().fit(np.zeros((4, 2)), np.zeros((4, 1)), [None] * 4)
    assert caught.value.hint == "pip install 'ripieno[boosting]'"


def test_a_worker_that_never_varies_keeps_its_mean() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(50, 3)), np.ones((50, 2))
    y[:25, 1] = 0.0
    heads = LogisticRegressor()
    heads.fit(z, y, [None] * 50)
    assert np.ptp(heads.predict(z)[:, 0]) == 0.0
    assert heads.predict(z)[0, 0] > 0.9
