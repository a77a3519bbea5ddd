"""Laws of the utility, and the seed equation."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.domain import Estimate, Objective, WorkerId
from ripieno.route.choose import DecisionRule, abstain, choose, gather_estimates
from ripieno.route.utility import PRESETS, Priced, Scales, chance_late, score_utilities

UNIT = st.floats(0, 1)


def score_utility(estimate: Estimate, objective: Objective, scales: Scales) -> float:
    """Score one estimate alone."""
    return float(score_utilities(gather_estimates([estimate]).expected, objective, scales)[0, 0])


def find_leader(estimates: Sequence[Estimate], objective: Objective, *, margin: float) -> WorkerId:
    """Find the worker that the rule takes."""
    found = choose(gather_estimates(estimates), objective, DecisionRule(scales=SCALES, margin=margin))
    return estimates[int(found.leader[0])].worker


def is_asked(estimate: Estimate, objective: Objective) -> bool:
    """Tell whether an answer of this worker is worth more than none."""
    return not abstain(gather_estimates([estimate]), np.array([0]), objective)[0]


def cost_of(estimate: Estimate) -> float:
    """The cost, which is known here."""
    assert estimate.cost_usd is not None
    return estimate.cost_usd


COST = st.floats(0, 10)
LATENCY = st.floats(0, 100)
OBJECTIVES = st.builds(
    Objective,
    preference=UNIT,
    mission_criticality=st.floats(0, 10),
    time_criticality=st.floats(0, 10),
    deadline_s=st.none() | st.floats(0.01, 50),
    preset=st.sampled_from([name for name in PRESETS if name != "qos"]),
)
ESTIMATES = st.builds(
    Estimate,
    worker=st.just(WorkerId("w")),
    quality=UNIT,
    quality_sd=st.floats(0, 0.5),
    cost_usd=COST,
    latency_s=LATENCY,
    latency_log_sd=st.floats(0, 2),
)
SCALES = Scales(cost_usd=0.01, latency_s=2.0)


@given(ESTIMATES, OBJECTIVES, UNIT)
def test_utility_is_bounded_and_rises_with_quality(estimate: Estimate, objective: Objective, better: float) -> None:
    score = score_utility(estimate, objective, SCALES)
    assert -1.0 <= score <= 1.0
    if better >= estimate.quality:
        assert score_utility(replace(estimate, quality=better), objective, SCALES) >= score - 1e-12


@given(ESTIMATES, OBJECTIVES, st.floats(0, 10), st.floats(0, 100))
def test_utility_never_rises_with_cost_or_latency(
    estimate: Estimate, objective: Objective, dearer: float, later: float
) -> None:
    score = score_utility(estimate, objective, SCALES)
    worse = replace(estimate, cost_usd=cost_of(estimate) + dearer, latency_s=estimate.latency_s + later)
    assert score_utility(worse, objective, SCALES) <= score + 1e-12


@given(ESTIMATES, OBJECTIVES, st.floats(0.001, 1000))
def test_the_unit_of_money_does_not_change_utility(estimate: Estimate, objective: Objective, unit: float) -> None:
    scaled = replace(estimate, cost_usd=cost_of(estimate) * unit)
    scales = Scales(cost_usd=SCALES.cost_usd * unit, latency_s=SCALES.latency_s)
    assert score_utility(scaled, objective, scales) == pytest.approx(
        score_utility(estimate, objective, SCALES), abs=1e-9
    )


@given(UNIT, st.floats(0.05, 100), st.floats(0, 10), st.floats(0, 10))
def test_qos_is_the_seed_equation(quality: float, latency_s: float, mission: float, time: float) -> None:
    objective = Objective(preset="qos", mission_criticality=mission, time_criticality=time)
    estimate = Estimate(worker=WorkerId("w"), quality=quality, quality_sd=0.2, cost_usd=1.0, latency_s=latency_s)
    q = 100 * quality
    expected = (1 + mission / 10) * q / 100 + (1 + time / 10) / latency_s
    assert score_utility(estimate, objective, SCALES) == pytest.approx(expected, rel=1e-12)


@given(COST, LATENCY, UNIT)
def test_at_one_quality_alone_decides_and_at_zero_price_alone(cost: float, latency: float, quality: float) -> None:
    best, cheapest = Objective(preference=1.0), Objective(preference=0.0)
    pairs = Priced(quality=np.array([quality, 0.0]), cost_usd=np.full(2, cost), latency_s=np.full(2, latency))
    assert score_utilities(pairs, best, SCALES)[0] == quality
    with_quality, without = score_utilities(pairs, cheapest, SCALES)
    assert with_quality == without


@given(st.lists(st.tuples(UNIT, UNIT, COST, LATENCY), min_size=1, max_size=6), UNIT, UNIT, st.floats(0, 0.3))
def test_a_dominated_worker_does_not_change_the_choice(
    rows: list[tuple[float, float, float, float]], preference: float, loss: float, margin: float
) -> None:
    estimates = [
        Estimate(worker=WorkerId(f"w{i}"), quality=q, quality_sd=0.1, cost_usd=c, latency_s=s, mean_quality=mean)
        for i, (q, mean, c, s) in enumerate(rows)
    ]
    for original in estimates:
        worse = replace(
            original,
            worker=WorkerId("worse"),
            quality=original.quality * loss,
            mean_quality=(original.mean_quality or 0.0) * loss,
            cost_usd=cost_of(original) + 1e-3,
            latency_s=original.latency_s + 0.1,
        )
        objective = Objective(preference=preference)
        before = find_leader(estimates, objective, margin=margin)
        assert find_leader([*estimates, worse], objective, margin=margin) == before


def test_the_incumbent_leads_unless_another_is_ahead_by_the_margin(make_estimate: Callable[..., Estimate]) -> None:
    usual = make_estimate("usual", quality=0.70, mean_quality=0.72)
    rival = make_estimate("rival", quality=0.73, mean_quality=0.60)
    best = Objective(preference=1.0, mission_criticality=0.0)
    assert find_leader([usual, rival], best, margin=0.02) == "rival"
    assert find_leader([usual, rival], best, margin=0.04) == "usual"
    assert find_leader([rival, usual], best, margin=2.0) == "usual"


@given(st.floats(0.0, 1e-12), UNIT)
def test_an_unknown_latency_counts_as_zero(latency: float, quality: float) -> None:
    estimate = Estimate(worker=WorkerId("w"), quality=quality, quality_sd=0.0, cost_usd=0.0, latency_s=latency)
    for preset in PRESETS:
        score = score_utility(estimate, Objective(preset=preset, deadline_s=1.0), SCALES)
        assert np.isfinite(score)


def test_a_deadline_prices_lateness(make_estimate: Callable[..., Estimate]) -> None:
    latency = np.array([2.0])
    assert chance_late(latency, 0.5, 2.0)[0] == pytest.approx(0.5)
    assert chance_late(latency, 0.5, 0.001)[0] == pytest.approx(1.0)
    assert chance_late(latency, 0.5, 1000.0)[0] == pytest.approx(0.0)
    assert chance_late(np.zeros(1), 0.0, 1.0)[0] == 0.0
    late, timely = make_estimate(latency_s=4.0, quality=0.9), make_estimate(latency_s=0.5, quality=0.6)
    hurried, patient = Objective(preference=1.0, deadline_s=1.0), Objective(preference=1.0)
    assert score_utility(late, hurried, SCALES) < score_utility(timely, hurried, SCALES)
    assert score_utility(late, patient, SCALES) > score_utility(timely, patient, SCALES)


def test_criticality_raises_the_price_of_doubt(make_estimate: Callable[..., Estimate]) -> None:
    sure, unsure = make_estimate(quality=0.7, quality_sd=0.01), make_estimate(quality=0.75, quality_sd=0.2)
    calm, grave = Objective(mission_criticality=0), Objective(mission_criticality=10)
    assert score_utility(unsure, calm, SCALES) > score_utility(sure, calm, SCALES)
    assert score_utility(unsure, grave, SCALES) < score_utility(sure, grave, SCALES)


def test_scales_must_be_positive() -> None:
    with pytest.raises(ValueError, match="scales must be positive"):
        Scales(cost_usd=0.0)


@given(ESTIMATES, OBJECTIVES, st.floats(0, 5), st.floats(0, 10), UNIT)
def test_abstention_rises_with_the_price_of_error_and_falls_with_its_own_price(
    estimate: Estimate, objective: Objective, price: float, graver: float, better: float
) -> None:
    priced = replace(objective, abstain_price=price)
    assert is_asked(estimate, replace(objective, abstain_price=None))
    if is_asked(estimate, priced):
        assert is_asked(estimate, replace(priced, abstain_price=price + 1.0))
        if better >= estimate.quality:
            assert is_asked(replace(estimate, quality=better), priced)
    elif graver >= priced.mission_criticality:
        assert not is_asked(estimate, replace(priced, mission_criticality=graver))


@given(ESTIMATES, OBJECTIVES, st.floats(0, 100))
def test_a_budgets_price_falls_on_money_alone(estimate: Estimate, objective: Objective, weight: float) -> None:
    paced = score_utility(estimate, replace(objective, money_weight=weight), SCALES)
    free = score_utility(estimate, objective, SCALES)
    assert paced == pytest.approx(free - weight * cost_of(estimate))


def test_abstain_price_and_money_weight_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="abstain_price must not be negative"):
        Objective(abstain_price=-1.0)
    with pytest.raises(ValueError, match="money_weight must not be negative"):
        Objective(money_weight=-0.1)
