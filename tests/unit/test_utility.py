"""Laws of the utility, and the seed equation."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.domain import Estimate, Objective, WorkerId
from ripieno.route.utility import PRESETS, Scales, chance_late, combine, score_utility

UNIT = st.floats(0, 1)
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
    worse = replace(estimate, cost_usd=estimate.cost_usd + dearer, latency_s=estimate.latency_s + later)
    assert score_utility(worse, objective, SCALES) <= score + 1e-12


@given(ESTIMATES, OBJECTIVES, st.floats(0.001, 1000))
def test_a_common_unit_of_money_changes_nothing(estimate: Estimate, objective: Objective, unit: float) -> None:
    scaled = replace(estimate, cost_usd=estimate.cost_usd * unit)
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
    assert combine(quality, cost, latency, objective=best, scales=SCALES) == quality
    price = combine(quality, cost, latency, objective=cheapest, scales=SCALES)
    assert price == combine(0.0, cost, latency, objective=cheapest, scales=SCALES)


def test_a_deadline_prices_lateness(make_estimate: Callable[..., Estimate]) -> None:
    estimate = make_estimate(latency_s=2.0, latency_log_sd=0.5)
    assert chance_late(estimate, None) == 0.0
    assert chance_late(estimate, 2.0) == pytest.approx(0.5)
    assert chance_late(estimate, 0.001) == pytest.approx(1.0)
    assert chance_late(estimate, 1000.0) == pytest.approx(0.0)
    assert chance_late(make_estimate(latency_s=0.0, latency_log_sd=0.0), 1.0) == 0.0


def test_criticality_raises_the_price_of_doubt(make_estimate: Callable[..., Estimate]) -> None:
    sure, unsure = make_estimate(quality=0.7, quality_sd=0.01), make_estimate(quality=0.75, quality_sd=0.2)
    calm, grave = Objective(mission_criticality=0), Objective(mission_criticality=10)
    assert score_utility(unsure, calm, SCALES) > score_utility(sure, calm, SCALES)
    assert score_utility(unsure, grave, SCALES) < score_utility(sure, grave, SCALES)


def test_scales_must_be_positive() -> None:
    with pytest.raises(ValueError, match="scales must be positive"):
        Scales(cost_usd=0.0)
