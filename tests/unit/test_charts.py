"""Charts: any names and points are drawn within limits, or not at all."""

import math

import pytest

from ripieno.dashboard import charts
from ripieno.dashboard.charts import Chart, Series, draw, draw_here


async def test_a_name_of_any_length_is_drawn_clipped() -> None:
    for name in ("k" * 300, "k " * 150, "\u200b" * 300, "<&>" * 100, "\0" * 300, "漢" * 300):
        drawn = await draw(Chart(title="tokens", x="tokens", bars={name: 3.0, "chat": math.inf, "code": 1.0}))
        assert drawn is not None
        assert "<svg" in drawn
        assert name[:60] not in drawn
    line = Series(
        name="w" * 300, points=[(0.1, 0.2), (math.nan, 1.0), (10.0, math.inf), (3.0, 0.5)], labels=["a" * 99] * 4
    )
    for has_log_x in (False, True):
        found = await draw(Chart(title="t", x="x", y="y", lines=[line], has_log_x=has_log_x))
        assert found is not None
        assert "w" * 50 not in found


async def test_a_chart_is_drawn_once() -> None:
    chart = Chart(title="once", x="x", bars={"a": 1.0, "b": 2.0})
    first = await draw(chart)
    assert first is not None
    assert await draw(chart) is first
    assert draw_here(chart) == first


async def test_a_chart_that_takes_too_long_or_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "DRAWING_S", 0.0)
    assert await draw(Chart(title="late", x="x", bars={"a": 1.0, "b": 2.0})) is None
    monkeypatch.setattr(charts, "DRAWING_S", 60.0)
    assert (
        await draw(Chart(title="wrong", x="x", lines=[Series(name="n", points=[(1.0, 2.0)], labels=["a", "b"])]))
        is None
    )
