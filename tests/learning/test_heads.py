"""Heads: learned from soft targets, saved small, refused for other labels, grown without touching an old row."""

from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import MakeWorker
from tests.learning.test_predictors import SKILL, make_world

from ripieno.domain import Price, Standing, WorkerId
from ripieno.domain.training import TrainingSet, describe_card
from ripieno.route.predictors import Checkpoint, Estimator
from ripieno.route.predictors.cards import weigh_similar
from ripieno.route.predictors.heads import make_targets, train_heads


def fit(world: TrainingSet, seed: int = 0) -> Estimator:
    return Estimator(Checkpoint.fit("heads", world, rng=np.random.default_rng(seed)))


async def test_old_logits_are_bit_equal_when_a_worker_is_added(make_worker: MakeWorker) -> None:
    world = await make_world(0)
    predictor = fit(world)
    known = [make_worker(name) for name in world.workers]
    newer = make_worker("coder-next")
    before = {row: predictor.forecast(world.features[row], known).estimates for row in range(30)}
    for row in range(30):
        after = predictor.forecast(world.features[row], [*known, newer]).estimates
        assert after[:3] == before[row], "every field of the old workers, to the last bit"
        scores = [e.score for e in after]
        assert scores[3] is not None
        own, chef = scores[1], scores[0]
        assert own is not None
        assert chef is not None
        assert abs(scores[3] - own) < abs(scores[3] - chef), "its row is made of its kin's"
    code = next(f for f in world.features if f.kind == "code")
    assert predictor.forecast(code, [newer]).estimates[0].quality > 0.6


async def test_masked_workers_do_not_count_and_classes_have_equal_weight() -> None:
    world = await make_world(1)
    holed = world.quality.copy()
    holed[::2, 1] = np.nan
    targets = make_targets(replace(world, quality=holed))
    assert (targets.worker[::2, 1] == 0.0).all(), "a mask stands before the softmax"
    assert np.allclose(targets.worker.sum(axis=1), 1.0)
    likeliest = targets.worker.argmax(axis=1)
    mass = [targets.weights[likeliest == column].sum() for column in range(3)]
    assert max(mass) < 1.2 * min(mass)
    assert ((targets.shares >= 0) & (targets.shares <= 1)).all()


async def test_a_validation_split_stops_the_training_of_noise() -> None:
    world = await make_world(2)
    rng = np.random.default_rng(0)
    noise = replace(world, quality=(rng.random(world.quality.shape) < 0.5).astype(float))
    z = rng.normal(size=(len(world), 200))
    heads = train_heads(z, make_targets(noise), rng=rng)
    sharp = train_heads(np.eye(3)[[list(SKILL).index(str(k)) for k in world.kinds]], make_targets(world), rng=rng)
    assert np.abs(heads["worker"][:-1]).max() < np.abs(sharp["worker"][:-1]).max() / 3


async def test_hard_tasks_are_recognised(make_worker: MakeWorker) -> None:
    world = await make_world(3)
    hopeless = world.quality.copy()
    law = np.array([kind == "law" for kind in world.kinds])
    hopeless[law] = 0.0
    predictor = fit(replace(world, quality=hopeless))
    advice = [predictor.forecast(features, []).advice for features in (await make_world(4)).features]
    kinds = np.array((await make_world(4)).kinds)
    abstain = np.array([shares["abstain"] for shares in advice])
    assert abstain[kinds == "law"].mean() > 0.7 > 0.4 > abstain[kinds == "code"].mean()
    cascade = np.array([shares["cascade"] for shares in advice])
    assert ((cascade >= 0) & (cascade <= 1)).all()
    assert set(advice[0]) == {"cascade", "verify", "abstain"}
    unpriced = make_targets(replace(world, cost_usd=np.full_like(world.cost_usd, np.nan)))
    assert (unpriced.shares[:, 1] == 0.0).all(), "without prices nothing speaks for a cascade"
    chef = make_worker("chef")
    assert predictor.standing(chef.id, sd=0.5) == Standing.FREE


async def test_heads_of_another_label_set_are_refused() -> None:
    world = await make_world(0)
    arrays = fit(world).checkpoint.arrays()
    assert sum(array.nbytes for array in arrays.values()) < 100_000
    for workers in (world.workers[::-1], (*world.workers, WorkerId("more")), world.workers[:2]):
        with pytest.raises(ValueError, match="trained for other workers"):
            Checkpoint.restore("heads", workers, arrays, version="v")


def test_similar_workers_share_the_family_or_else_the_price(make_worker: MakeWorker) -> None:
    cheap, dear = (
        Price(input_usd_per_mtok=0.1, output_usd_per_mtok=0.4),
        Price(input_usd_per_mtok=5, output_usd_per_mtok=20),
    )
    ids = tuple(WorkerId(name) for name in ("llama-8b", "llama-70b", "mistral-small", "mistral-large"))
    cards = np.stack([describe_card(price, 8192) for price in (cheap, dear, cheap, dear)])
    newer = make_worker("llama-3-9b", price=cheap, context_window=8192)
    weights = weigh_similar(newer, ids, cards)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.argmax() == 0
    assert weights[0] + weights[1] > 0.8
    stranger = make_worker("qwen-plus", price=dear, context_window=8192)
    by_price = weigh_similar(stranger, ids, cards)
    assert by_price[1] + by_price[3] > 0.8
    unknown = weigh_similar(stranger, ids, np.full((4, 5), np.nan))
    assert np.allclose(unknown, 0.25)
