"""The benchmark measures the rule that is served."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import MakeWorker

from ripieno.analyze import Analyzer
from ripieno.domain import Choice, Objective
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import CheckpointError
from ripieno.evaluate.benchmark import BEST_QUALITY, Benchmark, expect, judge, prepare, routed_utility
from ripieno.learn.promotion import compare
from ripieno.route import Scales, UtilityPolicy
from ripieno.route.choose import DecisionRule
from ripieno.route.predictors import Checkpoint, Estimator
from ripieno.tasks import Model, Prompt, RoutingData

TRAIN, TEST = 80, 30
MODELS = ("quick", "slow")


def make_data() -> RoutingData:
    """Make outcomes of two workers: `slow` is better, takes 0.8 s mostly, and often longer; `quick` takes 0.2 s."""
    rng, count = np.random.default_rng(3), TRAIN + TEST
    prompts = tuple(
        Prompt(
            id=str(n),
            text=f"Question {n}: what is {n} plus {n}?",
            kind="sum",
            source="made",
            split="train" if n < TRAIN else "test",
        )
        for n in range(count)
    )
    right = np.stack([rng.random(count) < 0.7, rng.random(count) < 0.85], axis=1).astype(float)
    latency = np.exp(rng.normal(np.log([0.2, 0.8]), [0.1, 1.0], size=(count, 2)))
    unknown = np.full(2 * count, np.nan)
    return RoutingData(
        name="made",
        prompts=prompts,
        models=tuple(Model(id=name) for name in MODELS),
        prompt_index=np.repeat(np.arange(count), 2),
        model_index=np.tile(np.arange(2), count),
        quality=right.ravel(),
        cost_usd=np.tile([0.001, 0.002], count),
        latency_s=latency.ravel(),
        input_tokens=unknown,
        output_tokens=unknown,
    )


@pytest.fixture(scope="module")
def fitted() -> tuple[Benchmark, Checkpoint]:
    """A data set, and a predictor that has learned from its training split."""
    data = make_data()
    tasks = [prompt.task for prompt in data.prompts]
    bench = prepare(data, asyncio.run(Analyzer(StaticEncoder()).analyze_many(tasks)))
    return bench, Checkpoint.fit("ridge", bench.train, rng=np.random.default_rng(0))


def serve(fitted: tuple[Benchmark, Checkpoint], objective: Objective, make_worker: MakeWorker) -> list[Choice]:
    """Decide each held-out task by the policy, from the estimates that it gets in the gateway."""
    bench, predictor = fitted
    policy, workers = (
        UtilityPolicy(DecisionRule(scales=bench.scales, margin=predictor.margin)),
        [make_worker(each) for each in MODELS],
    )
    return [
        policy.decide(
            features,
            Estimator(predictor).forecast(features, workers).estimates,
            objective=objective,
            rng=np.random.default_rng(0),
        )
        for features in bench.test.features
    ]


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, "slow"),
        ({"deadline_s": 1.0, "time_criticality": 10.0}, "quick"),
        ({"preference": 0.0}, "quick"),
        ({"preference": 0.0, "quality_floor": 0.76}, "slow"),
    ],
)
def test_serving_and_the_benchmark_take_the_same_worker(
    changes: dict[str, float], taken: str, fitted: tuple[Benchmark, Checkpoint], make_worker: MakeWorker
) -> None:
    objective = replace(BEST_QUALITY, **changes)  # type: ignore[arg-type]  # numbers of an objective
    chosen = [MODELS[column] for column in judge(*fitted, objective=objective, baselines=()).chosen]
    assert chosen == [choice.order[0] for choice in serve(fitted, objective, make_worker)]
    assert max(set(chosen), key=chosen.count) == taken


def test_no_answer_has_the_utility_of_silence(fitted: tuple[Benchmark, Checkpoint], make_worker: MakeWorker) -> None:
    bench, predictor = fitted
    objective = Objective(preference=1.0, mission_criticality=5.0, abstain_price=0.0)
    assert not any(choice.abstains for choice in serve(fitted, objective, make_worker))
    grave = replace(objective, mission_criticality=10.0)
    assert all(choice.abstains for choice in serve(fitted, grave, make_worker))
    assert routed_utility(bench, predictor, replace(grave, abstain_price=0.25)).tolist() == [-0.25] * TEST
    report = judge(bench, predictor, objective=replace(grave, abstain_price=0.25), baselines=()).report
    router, best = report.line("router"), report.line("best single")
    assert (router.quality.mean, router.cost_usd, router.utility.mean) == (0.0, 0.0, -0.25)
    met = best.quality.mean
    assert best.utility.mean == pytest.approx(met - 10.0 * (1.0 - met)), "a wrong answer costs ten right ones"
    answered = routed_utility(bench, predictor, objective)
    assert answered.tolist() == (2.0 * bench.held_out.quality[:, 1] - 1.0).tolist()


def test_each_checkpoint_is_measured_with_its_served_rule(fitted: tuple[Benchmark, Checkpoint]) -> None:
    bench, predictor = fitted
    objective = Objective(preference=0.5, mission_criticality=0.0, time_criticality=0.0)
    plain = DecisionRule(scales=Scales(cost_usd=1.0))
    thrifty = replace(plain, scales=Scales(cost_usd=0.0015))
    loses, gains = (
        compare(bench, predictor, predictor, objective=objective, rules=rules).facts["gain"]
        for rules in ((plain, thrifty), (thrifty, plain))
    )
    assert isinstance(gains, float)
    assert gains != 0.0
    assert gains == -loses  # type: ignore[operator]  # a float as well
    same = compare(bench, predictor, predictor, objective=objective, rules=(plain, plain))
    assert same.facts["gain"] == 0.0


def test_an_unknown_worker_is_named(fitted: tuple[Benchmark, Checkpoint]) -> None:
    bench, predictor = fitted
    with pytest.raises(CheckpointError, match="does not know the worker 'gone'"):
        expect(predictor, bench.test.features, ("quick", "gone"))
