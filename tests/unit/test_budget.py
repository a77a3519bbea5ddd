"""The ceilings of one run, before each of its calls."""

from dataclasses import replace

import pytest
from tests.conftest import MakeWorker

from ripieno.domain import UNKNOWN, Budget, Task
from ripieno.errors import UnknownPrice
from ripieno.execute import CallRecorder, RunBudget

TASK = Task.from_text("What is 1 + 1?")


async def test_a_call_of_unknown_price_is_refused_under_a_ceiling_of_money(make_worker: MakeWorker) -> None:
    worker = replace(make_worker("w"), price=UNKNOWN)
    with pytest.raises(UnknownPrice, match="the price of 'w' is unknown") as caught:
        async with RunBudget(Budget(cost_usd=1.0), None, CallRecorder()).reserve(worker, TASK):
            pytest.fail("the call must not be made")
    assert caught.value.worker == "w"
    assert caught.value.hint == 'state its price in ripieno.toml under [workers.w], or price = "free"'
    async with RunBudget(Budget(), None, CallRecorder()).reserve(worker, TASK) as hold:
        assert hold.task == TASK, "without a ceiling the price does not matter"
        hold.is_unused = True
