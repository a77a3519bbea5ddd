"""Learning from traffic: gains from few rows, recovery after a worker changes, and a budget that is met."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import MakeWorker
from tests.learning.test_predictors import SKILL, make_world

from ripieno.domain import UNKNOWN, Estimate, Features, Objective, Price, Standing, Worker, WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.route import Pacer, UtilityPolicy
from ripieno.route.choose import DecisionRule
from ripieno.route.predictors import Checkpoint, Estimator, Observation
from ripieno.route.predictors.drift import DriftWatch, is_watching
from ripieno.route.utility import PRESETS

BEST = Objective(preference=PRESETS["best"].preference, preset="best", mission_criticality=0, time_criticality=0)
REQUESTS = 1500


class Learning:
    """An estimator that is replaced after each outcome."""

    def __init__(self, world: TrainingSet, kind: str = "ridge") -> None:
        self.estimator = Estimator(Checkpoint.fit(kind, world, rng=np.random.default_rng(0)))

    def estimate(self, features: Features, workers: Sequence[Worker]) -> tuple[Estimate, ...]:
        return self.estimator.forecast(features, workers).estimates

    def learn(
        self,
        features: Features,
        worker: Worker,
        quality: float,
        *,
        cost_usd: float | None = None,
        latency_s: float | None = None,
        first_token_s: float | None = None,
    ) -> tuple[str, ...]:
        seen = Observation(
            features=features, worker=worker, quality=quality, cost_usd=cost_usd, latency_s=latency_s,
            first_token_s=first_token_s,
        )  # fmt: skip
        self.estimator, notices = self.estimator.fold([seen], until=self.estimator.state.watermark + 1)
        return notices


def fit(world: TrainingSet, kind: str = "ridge") -> Learning:
    return Learning(world, kind)


def serve(
    predictor: Learning,
    world: TrainingSet,
    truth: np.ndarray,
    workers: list[Worker],
    *,
    learns: bool,
    seed: int,
) -> np.ndarray:
    """True quality of the choices on each task of a stream; outcomes are drawn, and learned from where asked."""
    rng = np.random.default_rng(seed)
    policy = UtilityPolicy(DecisionRule(exploration=0.02, margin=predictor.estimator.checkpoint.margin))
    earned = []
    for row, features in enumerate(world.features):
        choice = policy.decide(features, predictor.estimate(features, workers), objective=BEST, rng=rng)
        taken = next(index for index, worker in enumerate(workers) if worker.id == choice.order[0])
        earned.append(truth[row, taken])
        if learns:
            predictor.learn(features, workers[taken], float(rng.random() < truth[row, taken]))
    return np.array(earned)


def truths(world: TrainingSet) -> np.ndarray:
    return np.array([SKILL[str(kind)] for kind in world.kinds])


@pytest.mark.simulation
async def test_traffic_adds_at_least_one_point_to_a_small_training_set(make_worker: MakeWorker) -> None:
    """A quarter of the measured rows had their outcomes mixed up: traffic puts it right."""
    gains = []
    for seed in range(3):
        world, stream = await make_world(seed, count=60), await make_world(seed + 50, count=REQUESTS)
        wrong = world.quality.copy()
        wrong[:15] = wrong[:15, ::-1]
        workers = [make_worker(name) for name in world.workers]
        taught = fit(replace(world, quality=wrong))
        still = serve(taught, stream, truths(stream), workers, learns=False, seed=seed)
        learned = serve(taught, stream, truths(stream), workers, learns=True, seed=seed)
        best = truths(stream)[:, world.best_single()].mean()
        gains.append((learned[-500:].mean() - best, learned[-500:].mean() - still[-500:].mean()))
        assert not taught.estimator.state.drifts
    against_best, against_still = np.mean(gains, axis=0)
    assert against_best > 0.01
    assert against_still > -0.01


@pytest.mark.simulation
async def test_ninety_percent_is_recovered_within_1500_requests_after_a_worker_breaks(make_worker: MakeWorker) -> None:
    recovered = []
    for seed in range(3):
        world, before = await make_world(seed), await make_world(seed + 20, count=500)
        after = await make_world(seed + 40, count=REQUESTS)
        workers = [make_worker(name) for name in world.workers]
        broken = truths(after) * np.array([1.0, 0.3, 1.0])  # the coder falls to three tenths
        online, fixed = fit(world), fit(world)
        serve(online, before, truths(before), workers, learns=True, seed=seed)
        assert not online.estimator.state.drifts
        earned = serve(online, after, broken, workers, learns=True, seed=seed)[-500:].mean()
        kept = serve(fixed, after, broken, workers, learns=False, seed=seed)[-500:].mean()
        assert online.estimator.state.drifts == ("coder answers worse than it did",)
        recovered.append((earned - kept) / (broken[-500:].max(axis=1).mean() - kept))
    assert np.mean(recovered) >= 0.9


def test_a_steady_worker_gives_no_drift() -> None:
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(20):
        watch = DriftWatch()
        for _ in range(2000):
            met = float(rng.random() < 0.7)
            alarms += watch.see(WorkerId("w"), int(rng.integers(5)), expected=0.7, outcome=met) is not None
    assert alarms <= 2


def test_without_river_there_is_no_drift_detection_and_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "river"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "river", None)
    is_watching.cache_clear()
    try:
        watch = DriftWatch()
        seen = [watch.see(WorkerId("w"), 0, expected=0.9, outcome=0.0) for _ in range(300)]
    finally:
        is_watching.cache_clear()
    assert seen == [None] * 300
    assert caplog.messages == ["drift detection is off: it needs the package 'river': pip install 'ripieno[train]'"]


@pytest.mark.parametrize("target", [0.001, 0.004])
def test_the_pacer_meets_the_budget_within_two_percent(target: float) -> None:
    costs, quality = np.array([2e-4, 3e-3, 2e-2]), np.array([0.5, 0.65, 0.75])
    for seed in range(5):
        rng, pacer, spent = np.random.default_rng(seed), Pacer(target), 0.0
        for _ in range(3000):
            priced = costs * np.exp(rng.normal(size=3) * 0.5)
            utility = 0.8 * np.clip(quality + rng.normal(size=3) * 0.1, 0, 1) - pacer.money_weight * priced
            taken = float(priced[int(utility.argmax())])
            pacer.observe(taken)
            spent += taken
        assert abs(spent / (3000 * target) - 1.0) <= 0.02
    free = Pacer(1.0)
    for _ in range(100):
        free.observe(0.01)
    assert free.money_weight == 0.0
    with pytest.raises(ValueError, match="target_usd must be positive"):
        Pacer(0.0)


async def test_a_new_worker_climbs_from_masked_to_free(make_worker: MakeWorker) -> None:
    world = await make_world(1)
    predictor = fit(world)
    fresh = make_worker("coder-next")
    workers = [*(make_worker(name) for name in world.workers), fresh]
    seen = [predictor.estimate(world.features[0], [fresh])[0].standing]
    code = next(features for features in world.features if features.kind == "code")
    guess = predictor.estimate(code, [fresh])[0]
    assert not guess.is_measured
    for row in range(90):
        predictor.learn(world.features[row], fresh, float(world.features[row].kind == "code"))
        seen.append(predictor.estimate(world.features[row], [fresh])[0].standing)
    assert list(dict.fromkeys(seen)) == [Standing.MASKED, Standing.SHADOW, Standing.TRIAL, Standing.FREE]
    learned = predictor.estimate(code, workers)[-1]
    assert learned.is_measured
    assert learned.quality > max(guess.quality, 0.75)
    assert learned.quality_sd < guess.quality_sd
    assert predictor.estimator.version == f"{predictor.estimator.checkpoint.version}+90"


async def test_estimates_of_known_workers_stay_when_another_worker_learns(make_worker: MakeWorker) -> None:
    world = await make_world(2)
    predictor = fit(world)
    chef, coder = make_worker("chef"), make_worker("coder")
    before = predictor.estimate(world.features[0], [chef, coder])
    for row in range(40):
        predictor.learn(world.features[row], coder, 0.0)
    after = predictor.estimate(world.features[0], [chef, coder])
    assert after[0] == before[0]
    assert after[1].quality < before[1].quality


async def test_kinds_are_inferred_from_some_labels(make_worker: MakeWorker) -> None:
    world = await make_world(5)
    predictor = fit(world)
    fresh = await make_world(6)
    told = [predictor.estimator.forecast(replace(features, kind=None), []).kind for features in fresh.features]
    assert np.mean([kind == truth for kind, truth in zip(told, fresh.kinds, strict=True)]) > 0.95
    plain = replace(world, features=tuple(replace(features, kind=None) for features in world.features))
    blind = fit(plain)
    assert blind.estimator.forecast(replace(fresh.features[0], kind=None), []).kind is None
    row = blind.estimate(fresh.features[0], [make_worker("chef"), make_worker("new")])
    assert row[1].standing == Standing.MASKED
    few = fit(plain.take(np.arange(30)))
    assert few.estimator.forecast(replace(fresh.features[0], kind=None), []).kind is None
    few.learn(fresh.features[0], make_worker("chef"), 1.0, cost_usd=0.5, latency_s=20.0)
    again = few.estimate(fresh.features[0], [make_worker("chef")])[0]
    assert again.cost_usd is not None
    assert row[0].cost_usd is not None
    assert again.cost_usd > 1.5 * row[0].cost_usd
    assert again.latency_s > 1.5 * row[0].latency_s


async def test_the_cost_of_a_new_worker_follows_its_price_or_similar_workers(make_worker: MakeWorker) -> None:
    world = await make_world(7)
    predictor = fit(world)
    features = world.features[0]
    by_token = make_worker("api", price=Price(input_usd_per_mtok=1e6, output_usd_per_mtok=0.0))
    by_time = make_worker("coder-two", price=Price(usd_per_cpu_s=1e-5))
    token, time = predictor.estimate(features, [by_token, by_time])
    assert token.cost_usd == pytest.approx(features.prompt_tokens)
    assert time.cost_usd == pytest.approx(0.01, rel=0.5), "the coder's"
    bare = fit(replace(world, cost_usd=np.full_like(world.cost_usd, np.nan), latency_s=world.cost_usd * np.nan))
    unknown = bare.estimate(features, [by_time, make_worker("coder")])
    assert unknown[0].latency_s == 1.0
    assert unknown[0].cost_usd == pytest.approx(1e-5)
    assert np.isnan(bare.estimator.checkpoint.cover(world)).all()
    assert bare.learn(features, by_time, 1.0, cost_usd=0.0, latency_s=None) == ()


async def test_time_to_first_token_is_estimated_from_timed_streams(make_worker: MakeWorker) -> None:
    world = await make_world(8)
    told = replace(world, output_tokens=np.full(world.quality.shape, 90.0))
    predictor = fit(told)
    chef, newer = make_worker("chef"), make_worker("chef-next")
    assert predictor.estimate(world.features[0], [chef])[0].first_token_s is None
    assert predictor.estimate(world.features[0], [chef])[0].tokens_per_s is None
    for row in range(30):
        for worker in (chef, newer):
            predictor.learn(world.features[row], worker, 1.0, latency_s=2.0, first_token_s=0.5)
    for estimate in predictor.estimate(world.features[0], [chef, newer]):
        assert estimate.first_token_s == pytest.approx(estimate.latency_s / 4)
        assert estimate.tokens_per_s == pytest.approx(90.0 / (0.75 * estimate.latency_s), rel=0.05)


async def test_an_unknown_price_without_measured_costs_stays_unknown(make_worker: MakeWorker) -> None:
    world = await make_world(0, count=60)
    world = replace(world, cost_usd=np.full_like(world.cost_usd, np.nan))
    predictor = fit(world)
    known = make_worker(world.workers[0], price=Price(usd_per_call=0.5))
    secret, newcomer = (make_worker(name, price=UNKNOWN) for name in (world.workers[1], "newcomer"))
    workers = [known, secret, newcomer]
    predictor.learn(world.features[0], secret, 1.0, cost_usd=0.1)
    costs = [estimate.cost_usd for estimate in predictor.estimate(world.features[0], workers)]
    assert costs == [pytest.approx(0.5), None, None]
