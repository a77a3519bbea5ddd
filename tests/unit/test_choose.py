"""The decision rule on arrays: the same as the policy's, the same as a plain form, and its parts one by one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.agree import Case, draw_case, find_differences
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.domain import Estimate, Objective, Standing
from ripieno.route.choose import (
    CRITICAL,
    DecisionRule,
    EstimateArrays,
    abstain,
    choose,
    explore,
    find_plausible,
    gather_estimates,
    guard,
    rank,
    take_highest,
)
from ripieno.route.utility import Priced, Scales, score_utilities

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS)
@settings(max_examples=100, deadline=None)
def test_the_policy_and_the_rule_on_arrays_choose_alike(seed: int) -> None:
    assert find_differences(draw_case(np.random.default_rng(seed), tasks=4)) == []


def lead_plainly(case: Case, row: int) -> int:
    """Find the leader of one task, worker by worker."""
    objective, rule, arrays = case.objective, case.rule, case.arrays
    free, eligible = list(Standing).index(Standing.FREE), np.flatnonzero(case.eligible[row]).tolist()

    def score(quality: np.ndarray, columns: list[int]) -> list[float]:
        parts = arrays.expected
        pairs = Priced(
            quality=quality[row, columns],
            cost_usd=parts.cost_usd[row, columns],
            latency_s=parts.latency_s[row, columns],
            quality_sd=np.asarray(parts.quality_sd)[row, columns],
            latency_log_sd=np.asarray(parts.latency_log_sd)[row, columns],
        )
        return [float(value) for value in score_utilities(pairs, objective, rule.scales)]

    utility = dict(zip(eligible, score(arrays.expected.quality, eligible), strict=True))
    known = [column for column in eligible if arrays.standing[row, column] == free]
    candidates = known if known and rule.has_ladder else eligible
    above = [column for column in candidates if arrays.expected.quality[row, column] >= objective.quality_floor]
    candidates = above or candidates
    best = max(candidates, key=lambda column: utility[column])
    usual = score(arrays.mean_quality, candidates)
    incumbent = candidates[usual.index(max(usual))]
    worth = 1.0 + objective.mission_criticality / 10.0 if objective.preset == "qos" else objective.preference
    is_ahead = rule.margin == 0.0 or utility[best] - utility[incumbent] > rule.margin * worth
    return best if is_ahead else incumbent


@given(seed=SEEDS)
@settings(max_examples=100, deadline=None)
def test_the_leader_is_the_one_of_the_plain_form(seed: int) -> None:
    case = draw_case(np.random.default_rng(seed), tasks=3)
    leaders = choose(case.arrays, case.objective, case.rule).leader.tolist()
    assert leaders == [lead_plainly(case, row) for row in range(3)]


@given(seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_only_eligible_workers_are_chosen_even_at_low_utility(seed: int) -> None:
    case = draw_case(np.random.default_rng(seed), tasks=5)
    grave = replace(case.objective, money_weight=1e308)
    expected = replace(case.arrays.expected, cost_usd=np.full(case.eligible.shape, 1e9))
    arrays = replace(case.arrays, expected=expected, is_eligible=case.eligible)
    rngs = [np.random.default_rng(seed) for _ in range(5)]
    with np.errstate(over="ignore", invalid="ignore"):
        found = choose(arrays, grave, case.rule)
        drawn = explore(arrays, found, grave, case.rule, rngs)
    for row, (column, propensity) in enumerate(drawn):
        assert case.eligible[row, found.leader[row]]
        assert case.eligible[row, column]
        assert 0.0 < propensity <= 1.0
        assert case.eligible[row, rank(found, row)].all()


def test_exploration_draws_each_worker_with_the_probability_it_states(make_estimate: Callable[..., Estimate]) -> None:
    estimates = [
        make_estimate("a", quality=0.6),
        make_estimate("b", quality=0.59),
        make_estimate("c", quality=0.58),
        make_estimate("new", quality=0.7, standing=Standing.TRIAL),
    ]
    arrays, rule = gather_estimates(estimates), DecisionRule(exploration=0.3)
    found = choose(arrays, Objective(), rule)
    tasks, rng = 5_000, np.random.default_rng(0)
    drawn = [explore(arrays, found, Objective(), rule, [rng])[0] for _ in range(tasks)]
    stated = dict(drawn)
    assert stated == pytest.approx({0: 0.78, 1: 0.1, 2: 0.1, 3: 0.02})
    for column, propensity in stated.items():
        met = sum(each == column for each, _ in drawn) / tasks
        error = np.sqrt(propensity * (1.0 - propensity) / tasks)
        assert abs(met - propensity) < 4.0 * error, "four standard errors of a binomial"
    grave = Objective(mission_criticality=CRITICAL)
    assert explore(arrays, found, grave, rule, [rng]) == [(0, 1.0)]


def test_an_unmeasured_leader_has_no_plausible_rival() -> None:
    expected = Priced(
        quality=np.array([[0.5, 0.49], [0.5, 0.49]]), cost_usd=np.zeros((2, 2)), latency_s=np.ones((2, 2)),
        quality_sd=0.1,
    )  # fmt: skip
    arrays = EstimateArrays.of_known(expected, np.array([0.5, 0.5]))
    arrays = replace(arrays, is_measured=np.array([[False, True], [True, False]]))
    found = choose(arrays, Objective(), DecisionRule())
    assert find_plausible(arrays, found).tolist() == [[True, False], [True, True]]


def test_an_incumbent_stays_within_the_margin() -> None:
    scores = np.array([[0.5, 0.6], [0.5, 0.52], [0.7, 0.2]])
    kept = guard(scores, scores.argmax(axis=1), np.zeros(3, dtype=np.int64), margin=0.05)
    assert kept.tolist() == [1, 0, 0]


def test_a_nan_never_leads() -> None:
    scores = np.array([[np.nan, -np.inf, 0.1], [np.nan, -np.inf, 0.1]])
    everyone = np.ones((2, 3), dtype=bool)
    assert take_highest(scores, everyone).tolist() == [2, 2]
    last_two = np.array([[False, True, False], [False, True, True]])
    assert take_highest(scores, last_two).tolist() == [1, 2]


def test_abstention_compares_with_the_chosen_worker() -> None:
    expected = Priced(quality=np.array([[0.9, 0.1], [0.9, 0.1]]), cost_usd=np.zeros((2, 2)), latency_s=np.ones((2, 2)))
    arrays = EstimateArrays.of_known(expected, np.array([0.5, 0.5]))
    priced = Objective(mission_criticality=5.0, abstain_price=0.2)
    assert abstain(arrays, np.array([0, 1]), priced).tolist() == [False, True]
    assert abstain(arrays, np.array([0, 1]), replace(priced, abstain_price=None)).tolist() == [False, False]


def test_the_options_survive_their_record() -> None:
    rule = DecisionRule(exploration=0.1, scales=Scales(cost_usd=0.2, latency_s=3.0), margin=0.04, has_ladder=False)
    assert DecisionRule.read(rule.facts) == rule
    assert DecisionRule.read({"margin": "high"}) == DecisionRule(), "a plugin's facts may have other types"
