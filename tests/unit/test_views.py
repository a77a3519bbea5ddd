"""Views: made in the background; a failed view says why, and is made again when it is old."""

import asyncio

import pytest

from ripieno.dashboard.views import FRESH_S, Views
from ripieno.errors import NotFound
from ripieno.testing import FixedClock


async def test_a_view_that_fails_says_why_and_is_made_again_when_it_is_old(caplog: pytest.LogCaptureFixture) -> None:
    clock = FixedClock()
    views = Views(clock)
    faults: list[Exception] = [ValueError("/home/eva/rp-secret"), NotFound("nothing is recorded yet")]

    async def make() -> str:
        if faults:
            raise faults.pop(0)
        return "whole"

    async def look() -> tuple[str | None, str]:
        task = views.get("audit", make).task
        assert task is not None
        await asyncio.wait({task})
        kept = views.get("audit", make)
        assert kept.task is task, "one that is fresh is not made again"
        clock.advance(FRESH_S + 1.0)
        return kept.value, kept.fault

    assert await look() == (None, "an internal error (ValueError)")
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]
    assert await look() == (None, "nothing is recorded yet")
    assert await look() == ("whole", "")
    await views.close()
