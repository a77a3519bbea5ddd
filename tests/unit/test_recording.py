"""A decision is recorded beside its call."""

import asyncio
from typing import Any

import pytest

from ripieno.errors import LedgerError
from ripieno.execute.recording import recorded_beside


async def test_a_refusal_that_comes_with_the_end_of_the_call_raises_only_the_refusal() -> None:
    loop, unhandled = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    recorded: asyncio.Future[int] = loop.create_future()
    with pytest.raises(LedgerError, match="full"):
        async with recorded_beside(recorded):
            recorded.set_exception(LedgerError("full"))  # its callbacks are scheduled, and the block ends first
    await asyncio.sleep(0)
    assert unhandled == []


async def test_a_refusal_cancels_the_call() -> None:
    recorded: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def call() -> None:
        async with recorded_beside(recorded):
            recorded.set_exception(LedgerError("full"))
            await asyncio.Event().wait()

    with pytest.raises(LedgerError, match="full"):
        await call()
