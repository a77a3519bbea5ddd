"""A PostgreSQL server that is locked or does not answer: requests are refused in time, and the writer recovers."""

import asyncio
import os
import signal
import time
from contextlib import suppress

import psutil
import pytest
from sqlalchemy import create_engine, make_url, text
from tests.conftest import HANG_S
from tests.unit.test_ledger import make_executed

from ripieno.errors import LedgerError
from ripieno.ledger import HASTE_S, Ledger
from ripieno.ledger.database import Patience, open_postgres

SOON_S = 4.0
"""Two seconds as promised, and as much again for a machine that does other things; without the limit it is endless."""


async def wait_until_taken(ledger: Ledger) -> None:
    async with asyncio.timeout(HANG_S):
        while not await ledger.probe():
            pass


async def test_a_locked_server_refuses_together_and_goes_on_after_the_release(postgres: str) -> None:
    with Ledger(postgres, patience_s=HASTE_S) as ledger:
        await ledger.append(make_executed("before"))
        holder = create_engine(postgres.replace("postgresql://", "postgresql+psycopg://"))
        with holder.begin() as connection:
            connection.execute(text("LOCK TABLE entries IN EXCLUSIVE MODE"))
            started = time.monotonic()
            found = await asyncio.gather(
                *(ledger.append(make_executed(f"r{number}")) for number in range(50)), return_exceptions=True
            )
            assert time.monotonic() - started < SOON_S
            assert {type(each) for each in found} == {LedgerError}
            assert "is locked by another process" in str(found[0])
            assert not await ledger.probe()
            assert len(ledger.campaigns.run_ids("none")) == 0, "readers are not held up"
        holder.dispose()
        await wait_until_taken(ledger)
        assert await ledger.append(make_executed("after")) == 1
        recorded = [stored.entry.id for stored in ledger.read()]
        assert recorded[-2:] == ["executed:before", "executed:after"]
        ledger.verify()


async def test_a_server_that_does_not_answer_is_given_up_and_readers_do_not_wait_for_it(postgres: str) -> None:
    with Ledger(postgres, patience_s=HASTE_S) as ledger:
        await ledger.append(make_executed("s0"))
        holder = create_engine(postgres.replace("postgresql://", "postgresql+psycopg://"))
        with holder.connect() as connection:
            backend = psutil.Process(int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))
            server = backend.parent()
        holder.dispose()
        assert server is not None
        stopped = (server, *server.children())
        try:
            for each in stopped:
                os.kill(each.pid, signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(LedgerError, match="did not answer"):
                await ledger.append(make_executed("s1"))
            with pytest.raises(LedgerError):
                await ledger.append(make_executed("s2"))
            with pytest.raises(LedgerError):
                ledger.count("executed")
            assert time.monotonic() - started < SOON_S
        finally:
            for each in stopped:
                with suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGCONT)
        await wait_until_taken(ledger)
        assert await ledger.append(make_executed("s3")) == 1
        recorded = {stored.entry.id for stored in ledger.read()}
        assert "executed:s3" in recorded
        assert "executed:s2" not in recorded
        ledger.verify()


def test_connections_without_patience_wait_as_long_as_the_server_says(postgres: str) -> None:
    for patience, limit in ((None, "0"), (Patience(), "30s")):
        engine = open_postgres(make_url(postgres), key="memory.url", patience=patience)
        with engine.connect() as connection:
            assert connection.execute(text("SHOW lock_timeout")).scalar_one() == limit
        engine.dispose()
