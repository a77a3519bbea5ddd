"""A damaged ledger: the gateway is not ready and makes no call, until a check of the whole database passes."""

import asyncio
import logging
import random
from pathlib import Path

import pytest
from aiohttp import ClientSession
from sqlalchemy import text
from tests.conftest import HANG_S
from tests.integration.conftest import Serve, open_gateway, write_pool
from tests.unit.test_ledger import make_executed

from ripieno.errors import LedgerCorrupt
from ripieno.ledger import Ledger
from ripieno.ledger import damage as found_damage

FILE = Path("ledger.db")
LISTENING = {"model": "auto", "messages": [{"role": "user", "content": "Hello."}]}


def fill() -> bytes:
    with Ledger(f"sqlite:///{FILE}") as ledger:
        for number in range(100):
            ledger.append_now([make_executed(f"r{number}")])
    return FILE.read_bytes()


def damage(size: int | None = None) -> None:
    with FILE.open("r+b") as file:
        file.seek(8192)
        file.write(random.Random(1).randbytes(size or FILE.stat().st_size - 8192))  # damage


async def see(client: ClientSession, address: str) -> tuple[int, str, int]:
    """Return the status of readiness, the health, and the status of a chat."""
    async with client.get(f"{address}/readyz") as ready, client.get(f"{address}/healthz") as health:
        body = await health.json()
        assert body["status"] == "degraded" or body.get("ledger_fault") is None
        async with client.post(f"{address}/v1/chat/completions", json=LISTENING) as chat:
            return ready.status, body["status"], chat.status


@pytest.mark.parametrize("on_fault", ["refuse", "spool"])
async def test_no_call_is_made_from_the_first_damage_until_a_check_passes(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, on_fault: str
) -> None:
    monkeypatch.setattr(found_damage, "CHECK_S", 0.01)
    caplog.set_level(logging.WARNING)
    server, whole = serve(), fill()
    path = write_pool(server)
    path.write_text(path.read_text().replace("[ledger]", f"[ledger]\non_fault = '{on_fault}'"))
    async with open_gateway() as (_, address, client):
        assert await see(client, address) == (200, "ok", 200)
        damage()
        async with asyncio.timeout(HANG_S):
            while (await see(client, address))[2] == 200:
                pass
        calls = len(server.seen)
        for _ in range(20):
            assert await see(client, address) == (503, "degraded", 503)
        body = {"model": "a", "input": "tea"}
        for route in ("/v1/embeddings", "/v1/moderations"):
            async with client.post(f"{address}{route}", json=body) as response:
                assert response.status == 503, route
        assert len(server.seen) == calls, "no call whose record would be lost"
        lines = [record.message for record in caplog.records if record.message.startswith("loop ledger")]
        assert len(lines) == 1, lines
        FILE.write_bytes(whole)
        async with asyncio.timeout(HANG_S):
            while await see(client, address) != (200, "ok", 200):
                pass
        lines = [record.message for record in caplog.records if record.message.startswith("loop ledger")]
        assert len(lines) == 2, lines
        assert "works again" in lines[1]


async def test_damage_that_a_reader_meets_stops_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_damage, "CHECK_S", 0.01)
    whole = fill()
    with Ledger(f"sqlite:///{FILE}") as ledger:
        with ledger._engine.connect() as connection, pytest.raises(Exception, match="malformed JSON"):
            connection.execute(text("SELECT json_extract('{', '$.a')"))
        assert ledger.damage.found is None, "malformed JSON is damage of one entry"
        damage()
        ledger._engine.dispose()
        with pytest.raises(LedgerCorrupt):
            ledger.verify()
        with pytest.raises(LedgerCorrupt):
            await ledger.append(make_executed("late"))
        assert not await ledger.probe()
        with pytest.raises(LedgerCorrupt):
            ledger.damage.require_none()
        FILE.write_bytes(whole)
        async with asyncio.timeout(HANG_S):
            while not await ledger.probe():
                pass
        assert await ledger.append(make_executed("late")) == 1
        assert ledger.verify().entries == 101


async def test_a_damage_that_a_check_of_the_file_does_not_find_is_found_by_writing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found_damage, "CHECK_S", 0.01)
    with Ledger(f"sqlite:///{FILE}") as ledger:
        commits = ledger._writer._commits
        insert, tried = commits._sql.insert, []

        def refuse(*given: object) -> None:
            tried.append(given)
            raise LedgerCorrupt("damaged where no check looks")

        monkeypatch.setattr(commits._sql, "insert", refuse)
        with pytest.raises(LedgerCorrupt):
            await ledger.append(make_executed("first"))
        async with asyncio.timeout(HANG_S):
            while len(tried) < 5:
                assert not await ledger.probe()
        monkeypatch.setattr(commits._sql, "insert", insert)
        async with asyncio.timeout(HANG_S):
            while not await ledger.probe():
                pass
        assert ledger.count("executed") == 0, "a check keeps no row"
        assert await ledger.append(make_executed("first")) == 1


async def test_a_ledger_that_was_damaged_before_the_start_costs_at_most_one_call(serve: Serve) -> None:
    server = serve()
    fill()
    damage(9000)
    write_pool(server)
    async with open_gateway() as (_, address, client):
        for _ in range(5):
            async with client.post(f"{address}/v1/chat/completions", json=LISTENING) as chat:
                assert chat.status == 503
            async with client.get(f"{address}/readyz") as ready, client.get(f"{address}/healthz") as health:
                assert ready.status == 503
                assert (await health.json())["status"] == "degraded"
        assert len(server.seen) <= 1


def test_a_check_of_a_server_database_reads_no_file(postgres: str) -> None:
    with Ledger(postgres) as ledger:
        ledger.damage.found = LedgerCorrupt("a row cannot be read", entry="x")
        with ledger.damage.checking():
            pass
        assert ledger.damage.found is None
