"""Accounts: what a key's budget reserves for a run, and releases."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from ripieno.domain import Key, KeyLimits
from ripieno.errors import BudgetExhausted, LedgerError
from ripieno.gateway.accounts import Accounts
from ripieno.ledger import Ledger

KEY = Key(id="k", name="team", created_at=0.0, limits=KeyLimits(usd_per_day=1.0))
RICH = Key(id="rich", name="rich", created_at=0.0, limits=KeyLimits())


def read(ledger: Ledger) -> dict[str, float]:
    return {run: usd for run, (_, _, usd) in ledger.keys.holds.read().items()}


async def test_a_reservation_becomes_the_cost_and_then_the_record(ledger: Ledger) -> None:
    accounts = Accounts(ledger.keys.holds)
    account = accounts.open(KEY, "a")
    assert await account.reserve(0.6, least_usd=0.1) == 0.6
    assert (accounts.held("k"), read(ledger)) == (0.6, {"a": 0.6})
    account.settle(0.6, cost_usd=0.2)
    other = account.open("b")
    assert await other.reserve(2.0, least_usd=0.1) == pytest.approx(0.8)
    with pytest.raises(BudgetExhausted, match=r"the day's \(USD\) budget is spent"):
        await account.reserve(0.3, least_usd=0.1)
    other.close(cost_usd=0.0, is_recorded=False)
    account.close(cost_usd=0.2, is_recorded=True)
    account.close(cost_usd=0.2, is_recorded=True)
    await accounts.close()
    assert (accounts.held("k"), read(ledger)) == (0.0, {"a": 0.2})
    assert dict(accounts.runs) == {}


async def test_an_unknown_cost_counts_as_the_reservation(ledger: Ledger) -> None:
    accounts = Accounts(ledger.keys.holds)
    account = accounts.open(KEY, "a")
    await account.reserve(0.6, least_usd=0.1)
    account.close(cost_usd=None, is_recorded=True)
    account.settle(0.6, cost_usd=0.1)
    await accounts.close()
    assert read(ledger) == {"a": 0.6}


async def test_a_key_without_a_budget_reserves_nothing(ledger: Ledger) -> None:
    accounts = Accounts(ledger.keys.holds)
    account = accounts.open(RICH, "a")
    assert not account.has_budget
    assert await account.reserve(5.0, least_usd=0.1) == 5.0
    account.settle(5.0, cost_usd=1.0)
    account.close(cost_usd=1.0, is_recorded=True)
    assert read(ledger) == {}


async def test_a_caller_that_leaves_before_the_grant_reserves_nothing(ledger: Ledger) -> None:
    accounts = Accounts(ledger.keys.holds)
    first = accounts.open(KEY, "a")
    await first.reserve(0.25, least_usd=0.1)
    for run, held in (("a", 0.25), ("b", None)):
        asking = asyncio.ensure_future(accounts.open(KEY, run).reserve(0.5, least_usd=0.1))
        await asyncio.sleep(0)  # the reservation is on its way
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await accounts.close()
        await asyncio.sleep(0)
        await accounts.close()
        assert read(ledger).get(run) == held
    assert accounts.held("k") == 0.25


async def test_a_failing_ledger_refuses_requests_or_is_ignored(ledger: Ledger, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("DROP TABLE holds")
    strict, lenient = Accounts(ledger.keys.holds), Accounts(ledger.keys.holds, is_lenient=True)
    with pytest.raises(LedgerError, match="holds"):
        await strict.open(KEY, "a").reserve(0.5, least_usd=0.1)
    assert strict.held("k") == 0.0
    account = lenient.open(KEY, "a")
    assert await account.reserve(0.5, least_usd=0.1) == 0.5
    assert lenient.held("k") == 0.5
    account.close(cost_usd=0.5, is_recorded=True)
    await lenient.close()


async def test_a_change_that_the_ledger_refused_is_written_later(ledger: Ledger, tmp_path: Path) -> None:
    accounts = Accounts(ledger.keys.holds)
    first = accounts.open(KEY, "a")
    await first.reserve(0.5, least_usd=0.1)
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("ALTER TABLE holds RENAME TO away")
    first.close(cost_usd=0.0, is_recorded=False)
    await accounts.close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("ALTER TABLE away RENAME TO holds")
    assert await accounts.open(KEY, "b").reserve(1.0, least_usd=0.9) == 1.0
    assert read(ledger) == {"b": 1.0}
