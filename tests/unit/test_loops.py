"""Loops: a failure ends none, waits grow within bounds, and each loop reports its state."""

import asyncio
import logging
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import HANG_S

from ripieno.loops import DEGRADED_AFTER, LEAST_STALLED_S, LONGEST_WAIT_S, Loop, Loops, LoopState
from ripieno.testing import FixedClock


def make_loop(clock: FixedClock, *, every_s: float = 1.0) -> Loop:
    return Loop("learning", every_s=every_s, clock=clock, rng=random.Random(0))


async def succeed() -> None:
    return None


async def fail() -> None:
    raise ValueError("/home/eva/key rp-secret")


@given(failures=st.integers(0, 1000), every_s=st.floats(0.01, 3600.0), seed=st.integers(0, 99))
def test_the_wait_is_the_period_and_grows_within_bounds_after_failures(
    failures: int, every_s: float, seed: int
) -> None:
    loop = Loop("x", every_s=every_s, clock=FixedClock(), rng=random.Random(seed))
    loop.failures_in_a_row = failures
    if failures == 0:
        assert loop.wait_s() == every_s
    else:
        whole = min(every_s * 2**failures, max(LONGEST_WAIT_S, 2 * every_s))
        assert whole / 2 <= loop.wait_s() <= whole
        assert loop.wait_s() >= every_s * (1 - 1e-12) or whole < 2 * every_s


async def test_a_loop_reports_its_state(caplog: pytest.LogCaptureFixture) -> None:
    clock = FixedClock()
    loop = make_loop(clock)
    assert (loop.state, loop.success_age_s, loop.last_error) == (LoopState.STARTING, None, None)
    await loop.run(fail)
    assert (loop.state, loop.is_degraded, loop.last_error) == (LoopState.FAILING, False, "ValueError")
    await loop.run(fail)
    assert (loop.is_degraded, loop.failures_in_a_row) == (True, DEGRADED_AFTER)
    (first, _) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert first.exc_info is not None
    assert first.exc_info[0] is ValueError
    await loop.run(succeed)
    clock.advance(7.0)
    assert (loop.state, loop.is_degraded, loop.success_age_s) == (LoopState.OK, False, 7.0)
    assert (loop.runs, loop.failures, loop.failures_in_a_row) == (1, 2, 0)
    assert "works again after 2 failures" in caplog.text


@pytest.mark.parametrize(("every_s", "limit_s"), [(1.0, LEAST_STALLED_S), (60.0, 600.0)])
async def test_a_run_that_does_not_end_is_stalled(every_s: float, limit_s: float) -> None:
    clock = FixedClock()
    loop, goes_on = make_loop(clock, every_s=every_s), asyncio.Event()
    task = asyncio.create_task(loop.run(goes_on.wait))
    await asyncio.sleep(0)
    clock.advance(limit_s)
    assert (loop.state, loop.is_degraded) == (LoopState.STARTING, False)
    clock.advance(0.1)
    assert (loop.state, loop.is_degraded) == (LoopState.STALLED, True)
    goes_on.set()
    await task
    assert (loop.state, loop.is_degraded) == (LoopState.OK, False)


async def test_a_loop_survives_the_cancellation_of_awaited_work() -> None:
    loop = make_loop(FixedClock())

    async def wait_for_what_is_cancelled() -> None:
        waiting = asyncio.get_running_loop().create_future()
        waiting.cancel()
        await waiting

    await loop.run(wait_for_what_is_cancelled)
    assert loop.last_error == "CancelledError"


async def test_a_loop_survives_failures_and_ends_with_its_owner() -> None:
    outcomes: Iterator[bool] = iter([False, False, True])
    done, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        if not next(outcomes, True):
            raise ValueError("no")
        done.set()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    elsewhere = make_loop(FixedClock())
    async with asyncio.timeout(HANG_S), Loops([elsewhere]) as loops:
        working, hanging = make_loop(FixedClock(), every_s=0.001), make_loop(FixedClock())
        loops.start(working, work)
        loops.start(hanging, hang, is_due=True)
        await done.wait()
        assert list(loops) == [elsewhere, working, hanging]
    assert ended.is_set()
    assert (working.failures, working.failures_in_a_row, hanging.failures) == (2, 0, 0)


def test_thread_work_is_recorded_like_loop_work(caplog: pytest.LogCaptureFixture) -> None:
    def raise_one() -> None:
        raise ValueError("no")

    loop = make_loop(FixedClock())
    loop.run_now(raise_one)
    assert (loop.runs, loop.failures, loop.last_error) == (0, 1, "ValueError")
    loop.run_now(lambda: None)
    assert (loop.state, loop.runs, loop.failures_in_a_row) == (LoopState.OK, 1, 0)
    caplog.clear()
    for _ in range(3):
        loop.run_now(lambda: OSError("dealt with"))
    assert (loop.failures, loop.failures_in_a_row, loop.last_error) == (4, 3, "OSError")
    assert len(caplog.records) == 1, "a fault that lasts is logged when it begins"
