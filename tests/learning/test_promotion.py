"""Promotion: a null candidate is hardly ever promoted, a good one is, and harm is caught on the way."""

from pathlib import Path

import numpy as np
import pytest

from ripieno.evaluate.offpolicy import Logged, estimate_difference
from ripieno.evaluate.sequential import BettingTest
from ripieno.learn.checkpoint import Canary, Registry
from ripieno.learn.promotion import (
    CANARY_OUTCOMES,
    MOST_PAIRS,
    judge_canary,
    judge_harm,
    judge_replay,
    judge_shadow,
    new_shadow_test,
)

WORKERS = 4
TRUTH = np.array([0.6, 0.55, 0.5, 0.45])


def make_log(rng: np.random.Generator, *, tasks: int, exploration: float = 0.1) -> tuple[Logged, np.ndarray]:
    """Traffic of a policy that takes worker 0 but for its exploration, with a model that is off by a little."""
    quality = np.clip(TRUTH + rng.normal(size=(tasks, WORKERS)) * 0.2, 0, 1)
    explored = rng.random(tasks) < exploration
    action = np.where(explored, rng.integers(WORKERS, size=tasks), 0)
    propensity = np.where(action == 0, 1 - exploration + exploration / WORKERS, exploration / WORKERS)
    reward = (rng.random(tasks) < quality[np.arange(tasks), action]).astype(float)
    log = Logged(action=action, propensity=propensity, reward=reward, expected=np.clip(quality + 0.05, 0, 1))
    return log, quality


def always(worker: int, tasks: int) -> np.ndarray:
    shares = np.zeros((tasks, WORKERS))
    shares[:, worker] = 1.0
    return shares


def run_gate(rng: np.random.Generator, *, lead: float) -> bool:
    """The whole gate on a candidate that is better by `lead` where it disagrees; gives whether it is promoted."""
    old, new = rng.random(300) < 0.5, rng.random(300) < 0.5 + lead
    replay = judge_replay(new.astype(float), old.astype(float), slices=["a"] * 300, groups=np.arange(300))
    if not replay.passed:
        return False
    test = new_shadow_test()
    for _ in range(MOST_PAIRS):
        test.update(float(rng.random() < 0.5 + lead) - float(rng.random() < 0.5))
        if test.is_rejected:
            break
    if not judge_shadow(test).passed:
        return False
    canary = judge_canary([0.5 - float(rng.random() < 0.5 + lead) for _ in range(CANARY_OUTCOMES)])
    return canary is not None and canary.passed


def test_at_most_two_percent_of_null_candidates_are_promoted_over_200_runs() -> None:
    promoted = sum(run_gate(np.random.default_rng(seed), lead=0.0) for seed in range(200))
    assert promoted <= 4


def test_a_good_candidate_is_promoted_most_of_the_time() -> None:
    assert sum(run_gate(np.random.default_rng(seed), lead=0.15) for seed in range(40)) >= 36


def test_a_test_after_every_pair_keeps_its_error_rate() -> None:
    wrong = 0
    for seed in range(300):
        rng, test = np.random.default_rng(seed), BettingTest(alpha=0.05)
        for _ in range(400):
            test.update(float(rng.choice([-1.0, 0.0, 1.0])))
        wrong += test.is_rejected
    assert wrong <= 15
    with pytest.raises(ValueError, match=r"difference must be in \[-1, 1\]"):
        BettingTest(alpha=0.1).update(2.0)


def test_replay_refuses_a_loss_overall_or_in_one_slice() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(200)
    groups, slices = np.arange(200), ["maths"] * 40 + ["prose"] * 160
    assert judge_replay(base, base, slices=slices, groups=groups).passed
    worse = judge_replay(base - 0.05, base, slices=slices, groups=groups)
    assert not worse.passed
    assert "loses 0.0500 utility on held-out tasks" in worse.reason
    tilted = base + np.where(np.array(slices) == "maths", -0.1, 0.1)
    found = judge_replay(tilted, base, slices=slices, groups=groups)
    assert not found.passed
    assert "loses 0.1000 utility on tasks of kind 'maths'" in found.reason


def test_logged_traffic_vetoes_a_harmful_candidate_only() -> None:
    log, _ = make_log(np.random.default_rng(1), tasks=3000, exploration=0.2)
    assert not judge_harm(log, always(3, 3000)).passed
    assert judge_harm(log, always(0, 3000)).passed
    few = Logged(action=log.action[:50], propensity=log.propensity[:50], reward=log.reward[:50],
                 expected=log.expected[:50])  # fmt: skip
    assert "too few for a veto" in judge_harm(few, always(3, 50)).reason
    assert judge_harm(None, None).passed


def test_the_doubly_robust_estimate_equals_the_value_of_the_policy() -> None:
    errors, unmodelled, inside = list[float](), list[float](), 0
    for seed in range(40):
        log, quality = make_log(np.random.default_rng(seed), tasks=3000)
        truth = float(quality[:, 1].mean())
        earned = float(log.reward.mean())
        found = estimate_difference(log, always(1, 3000))
        errors.append(earned + found.mean - truth)
        inside += found.low <= truth - earned <= found.high
        weights = (log.action == 1) / log.propensity
        unmodelled.append(float((weights * log.reward).mean()) - truth)
        difference = estimate_difference(log, always(0, 3000))
        assert abs(difference.mean) < 0.02
    assert inside >= 34
    assert abs(np.mean(errors)) < 0.02
    assert np.mean(np.square(errors)) < np.mean(np.square(unmodelled)), (
        "the model takes variance from the weights alone"
    )
    with pytest.raises(ValueError, match="propensities must be in"):
        Logged(action=np.zeros(1, int), propensity=np.zeros(1), reward=np.zeros(1), expected=np.zeros((1, 1)))
    with pytest.raises(ValueError, match="rewards must be known"):
        Logged(action=np.zeros(1, int), propensity=np.ones(1), reward=np.full(1, np.nan), expected=np.zeros((1, 1)))


def test_a_canary_continues_until_it_has_enough_outcomes() -> None:
    assert judge_canary([0.0] * 50) is None
    fine = judge_canary([0.0] * CANARY_OUTCOMES)
    assert fine is not None
    assert fine.passed
    rng = np.random.default_rng(0)
    bad = judge_canary([0.8 - float(rng.random() < 0.4) for _ in range(CANARY_OUTCOMES)])
    assert bad is not None
    assert not bad.passed
    assert "short of the incumbent's promise" in bad.reason
    assert int(str(bad.facts["outcomes"])) < CANARY_OUTCOMES


def test_a_canary_has_its_own_file(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    assert registry.canary() is None
    registry.set_canary(Canary(checkpoint="stack-1", share=0.05, since=7))
    assert registry.canary() == Canary(checkpoint="stack-1", share=0.05, since=7)
    registry.set_canary(None)
    registry.set_canary(None)
    assert registry.canary() is None
