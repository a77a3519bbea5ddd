"""Rates of keys in one process: a sliding window of a minute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.gateway.shared import LONGEST_WAIT_S, MOST_WINDOWS, WINDOW_S, Counts, _Window


def test_a_minute_allows_the_limit_and_the_next_minute_frees_it_gradually() -> None:
    window = _Window(began=0.0)
    assert [window.take(1.0, most=3, cost=1) for _ in range(3)] == [0.0, 0.0, 0.0]
    wait = window.take(2.0, most=3, cost=1)
    assert wait == pytest.approx(58.0)
    assert window.take(59.0, most=3, cost=1) == 1.0, "no wait is told that is under a second"
    assert window.take(66.0, most=3, cost=1) == 0.0, "a tenth of the new minute has passed: one of three is free"
    assert window.take(66.0, most=3, cost=1) > 0.0
    assert window.take(81.0, most=3, cost=1) == 0.0
    assert window.take(81.0, most=3, cost=1) > 0.0
    assert window.take(200.0, most=3, cost=3) == 0.0, "two minutes later all is free"


def test_a_cost_of_zero_takes_nothing_and_a_large_cost_takes_the_rest() -> None:
    window = _Window(began=0.0)
    assert window.take(0.0, most=10, cost=8) == 0.0
    assert window.take(0.0, most=10, cost=0) == 0.0
    assert window.take(0.0, most=10, cost=5) > 0.0
    assert window.take(0.0, most=10, cost=0) > 0.0, "the two that were left are gone"
    assert _Window(began=0.0).take(0.0, most=10, cost=500) == 0.0, "more than a minute allows is all of it"


@given(
    most=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 5)), min_size=1, max_size=60),
)
def test_no_clock_minute_exceeds_the_limit(most: int, steps: list[tuple[float, int]]) -> None:
    window, now, taken = _Window(began=0.0), 0.0, dict[int, int]()
    for passed, cost in steps:
        now += passed
        wait = window.take(now, most=most, cost=cost)
        assert 0.0 <= wait <= LONGEST_WAIT_S
        if wait == 0.0:
            minute = int(now / WINDOW_S)
            taken[minute] = taken.get(minute, 0) + min(cost, most)
            assert taken[minute] <= most


async def test_expired_counts_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    local = Counts()
    moment = [0.0]
    monkeypatch.setattr("ripieno.gateway.shared.time.monotonic", lambda: moment[0])
    for number in range(MOST_WINDOWS + 1):
        assert await local.take("requests", str(number), most=1, cost=1) == 0.0
    assert await local.take("requests", "0", most=1, cost=1) > 0.0
    moment[0] = 2 * WINDOW_S + 1.0
    assert await local.take("requests", "0", most=1, cost=1) == 0.0
    assert len(local._windows) == 1
