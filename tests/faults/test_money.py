"""A killed gateway forgets no spend: a running call counts as its reservation."""

import asyncio
import json
from pathlib import Path

from aiohttp import ClientConnectionError, ClientSession
from tests.faults.conftest import Served, ServeIn

from ripieno.domain import KeyLimits, SystemClock, find_periods
from ripieno.ledger import Ledger
from ripieno.testing import ReceivedRequest, Reply, ScriptedServer

BUDGET = 0.02
HELD = 0.01
"""1,000 tokens of 10 USD a million; what reading costs is less than a hundredth of it."""


def write_settings(folder: Path, server: ScriptedServer) -> None:
    (folder / "ripieno.toml").write_text(
        f'home = "{folder}/home"\n[ledger]\nurl = "sqlite:///{folder}/ledger.db"\n'
        f'[providers.p]\nkind = "openai"\nbase_url = "{server.base_url}"\n'
        '[workers.w]\nprovider = "p"\ninput_usd_per_mtok = 2.5\noutput_usd_per_mtok = 10.0\n'
    )


async def ask(client: ClientSession, served: Served, key: str, max_tokens: int) -> tuple[int, dict[str, str]]:
    body = {"model": "w", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
    headers = {"authorization": f"Bearer {key}"}
    async with client.post(f"{served.address}/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        return response.status, {name.lower(): value for name, value in response.headers.items()}


def read_spend(ledger: Ledger) -> float:
    day, _ = find_periods(SystemClock().now())
    return sum(part.cost_usd for found in ledger.keys.spent((day,)).values() for part in found.values())


async def test_a_kill_forgets_no_spend(serve_in: ServeIn, tmp_path: Path) -> None:
    def answer(request: ReceivedRequest) -> Reply:
        asked = json.dumps(request.body)
        return Reply(hangs=True) if '"max_tokens": 1000' in asked else Reply(text="four")

    with ScriptedServer(answer) as server:
        write_settings(tmp_path, server)
        with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
            key, secret = ledger.keys.create("team", KeyLimits(usd_per_day=BUDGET))
        served = serve_in(tmp_path)
        async with ClientSession() as client:
            assert (await ask(client, served, secret, 100))[0] == 200
            server.came.clear()
            asking = asyncio.ensure_future(ask(client, served, secret, 1000))
            assert await asyncio.to_thread(server.came.wait, 60)
            served.process.kill()
            served.process.wait()
            (lost,) = await asyncio.gather(asking, return_exceptions=True)
            assert isinstance(lost, ClientConnectionError)
        with Ledger(served.ledger_url) as ledger:
            found = ledger.keys.holds.read().values()
            assert {holder for holder, _, _ in found} == {key.id}
            assert HELD <= max(usd for _, _, usd in found) <= HELD * 1.1
            taken = sum(usd for _, _, usd in found) + read_spend(ledger)
        again = serve_in(tmp_path)
        async with ClientSession() as client:
            status, headers = await ask(client, again, secret, 1500)
            assert status == 200
            left = BUDGET - taken
            assert 0.9 * left <= int(headers["x-ripieno-max-tokens"]) * 10.0 / 1e6 <= left
        with Ledger(served.ledger_url) as ledger:
            ledger.verify()
            assert max(usd for _, _, usd in ledger.keys.holds.read().values()) >= HELD
