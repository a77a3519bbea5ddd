"""Intervals, curves and the table of proof, against hand-made answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.dashboard.page import render_file
from ripieno.domain import Objective
from ripieno.evaluate import Field, Table, bootstrap_mean
from ripieno.evaluate.benchmark import BEST_QUALITY
from ripieno.evaluate.curve import choose_penalty, gap_recovered, hull, mix_curve, sweep_curve
from ripieno.evaluate.report import BenchmarkReport, Line, give_verdict
from ripieno.route.utility import Scales


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_an_interval_has_its_stated_coverage() -> None:
    hits = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(3.0, 1.0, size=60)
        interval = bootstrap_mean(values, rng=np.random.default_rng(seed + 1000))
        hits += interval.low <= 3.0 <= interval.high
    assert 0.89 <= hits / 200 <= 0.99, "95 % within four standard errors of 200 trials"


def test_tasks_of_one_group_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=10), 20)
    alone = bootstrap_mean(values, rng=rng())
    grouped = bootstrap_mean(values, rng=rng(), groups=np.repeat(np.arange(10), 20))
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert grouped.mean == alone.mean == pytest.approx(values.mean())
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean(np.array([]), rng=rng())


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=12))
@settings(deadline=None)
def test_a_hull_stands_above_every_point_and_rises(points: list[tuple[float, float]]) -> None:
    curve = hull(points)
    assert (np.diff(curve.cost_usd) > 0).all()
    assert (np.diff(curve.quality) > 0).all()
    for cost, quality in points:
        assert curve.height_at(cost) >= quality - 1e-9


def test_a_curve_gives_height_price_and_area() -> None:
    curve = hull([(1.0, 0.5), (3.0, 0.9), (2.0, 0.6)])
    assert curve.height_at(2.0) == pytest.approx(0.7)
    assert curve.height_at(9.0) == 0.9
    assert curve.price_of(0.7) == pytest.approx(2.0)
    assert curve.price_of(0.4) == 1.0
    assert curve.price_of(0.95) == float("inf")
    assert curve.area(1.0, 3.0) == pytest.approx(0.7, abs=1e-3)
    assert curve.area(2.0, 2.0) == pytest.approx(0.7)


QUALITY = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
COST = np.array([[0.1, 0.2]] * 4)


def make_field(halves: tuple[np.ndarray, np.ndarray] | None = None) -> Field:
    return Field(
        workers=("a", "b"), quality=QUALITY, cost_usd=COST, latency_s=np.full((4, 2), np.nan), kinds=("x",) * 4,
        groups=np.arange(4), halves=halves,
    )  # fmt: skip


def test_the_table_agrees_with_arithmetic_by_hand() -> None:
    table = Table(make_field(), best_single=0, objective=BEST_QUALITY, scales=Scales())
    best, oracle = table.always(0, name="best single"), table.oracle()
    half = table.choose(np.array([[1, 0], [1, 0], [1, 0], [0, 1]]), name="router")
    lines = {line.name: line for line in table.score([table.uniform(), best, half, oracle])}
    assert lines["random"].quality.mean == 0.375
    assert lines["best single"].quality.mean == 0.5
    assert lines["best single"].gap_closed == 0.0
    assert lines["oracle"].quality.mean == 0.75
    assert lines["oracle"].gap_closed == 1.0
    assert lines["oracle"].note == "naive: one sample a pair"
    assert lines["router"].cost_usd == pytest.approx(0.125)
    assert lines["router"].latency_s is None


def test_luck_does_not_count_for_a_cross_fitted_oracle() -> None:
    """Workers that are coins: the naive oracle seems to win, the cross-fitted one gains nothing."""
    generator = np.random.default_rng(5)
    halves = (generator.integers(0, 2, (4000, 2)).astype(float), generator.integers(0, 2, (4000, 2)).astype(float))
    field = Field(
        workers=("a", "b"), quality=(halves[0] + halves[1]) / 2, cost_usd=np.full((4000, 2), np.nan),
        latency_s=np.full((4000, 2), np.nan), kinds=("x",) * 4000, groups=np.arange(4000), halves=halves,
    )  # fmt: skip
    fitted = Table(field, best_single=0, objective=BEST_QUALITY, scales=Scales())
    line = fitted.score([fitted.oracle()])[0]
    assert line.note == "cross-fitted"
    assert abs(line.quality.mean - 0.5) < 0.02
    naive = field.quality.max(axis=1).mean()
    assert naive > 0.6


def test_the_seed_equation_can_be_the_utility_of_the_table() -> None:
    field = Field(
        workers=("a", "b"), quality=QUALITY, cost_usd=COST, latency_s=np.full((4, 2), 2.0), kinds=("x",) * 4,
        groups=np.arange(4), halves=(QUALITY, QUALITY),
    )  # fmt: skip
    objective = Objective(preset="qos", mission_criticality=5, time_criticality=0)
    table = Table(field, best_single=0, objective=objective, scales=Scales())
    assert table.utility[0].tolist() == [1.5 + 0.5, 0.5]
    assert table.score([table.oracle()])[0].utility.mean == pytest.approx(1.5 * 0.75 + 0.5)


def test_a_free_router_beats_the_mix_on_the_curve() -> None:
    perfect = sweep_curve(QUALITY, COST, QUALITY, COST)
    mix = mix_curve(QUALITY, COST)
    assert perfect.height_at(0.2) == 0.75
    assert mix.height_at(0.2) == 0.5


def test_the_verdict_names_the_limit() -> None:
    def line(gain: float, spread: float) -> Line:
        values = np.full(50, gain) + np.random.default_rng(0).normal(0, spread, 50)
        interval = bootstrap_mean(values - values.mean() + gain, rng=rng())
        return Line(
            name="x", quality=interval, gain=interval, cost_usd=None, latency_s=None, utility=interval,
            utility_gain=interval, gap_closed=None,
        )  # fmt: skip

    assert give_verdict(line(0.0, 0.1), line(0.01, 0.0)).startswith("pool-bound")
    assert give_verdict(line(0.19, 0.01), line(0.2, 0.0)).startswith("near the ceiling")
    assert "a gain is proven" in give_verdict(line(0.1, 0.01), line(0.2, 0.0))
    assert give_verdict(line(0.001, 0.5), line(0.2, 0.0)).startswith("router-bound")
    assert "no gain is proven" in give_verdict(line(0.001, 0.5), line(0.2, 0.0))
    assert "a loss is proven" in give_verdict(line(-0.1, 0.01), line(0.2, 0.0))


def test_the_gap_recovered_is_an_area() -> None:
    """Three tasks, the strong worker wins one: asked first it recovers all at once, asked last at the end."""
    quality = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    first, last = np.array([[0, 0.9], [0, 0.5], [0, 0.1]]), np.array([[0, 0.1], [0, 0.5], [0, 0.9]])
    assert gap_recovered(first, quality, weak=0, strong=1) == pytest.approx(5 / 6)
    assert gap_recovered(last, quality, weak=0, strong=1) == pytest.approx(1 / 6)
    assert np.isnan(gap_recovered(first, quality, weak=1, strong=0))


def test_the_penalty_is_the_cheapest_that_keeps_the_floor() -> None:
    scores = np.array([[0.5, 0.9], [0.88, 0.9]])
    cost = np.array([[1.0, 10.0], [1.0, 10.0]])
    quality = np.array([[0.0, 1.0], [1.0, 1.0]])
    weight = choose_penalty(scores, cost, quality, cost, floor=1.0)
    assert np.argmax(scores - weight * cost, axis=1).tolist() == [1, 0]
    weight = choose_penalty(scores, cost, quality, cost, floor=0.5)
    assert np.argmax(scores - weight * cost, axis=1).tolist() == [0, 0]
    assert choose_penalty(scores, cost, quality, cost, floor=1.1) == 0.0


def test_a_page_escapes_texts_of_the_data() -> None:
    report = BenchmarkReport(
        name="<script>alert(1)</script>", tasks=1, train_tasks=1, workers=("a",), best_single="a", policies=(),
        verdict="<b>proven</b>",
    )  # fmt: skip
    page = render_file(report.tabulate(), {})
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)" in page
