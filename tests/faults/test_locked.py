"""A ledger that another process locks: waiting requests are refused soon, and continue after the release."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import ClientSession, TCPConnector
from tests.conftest import HANG_S
from tests.faults.conftest import Served, ServeIn
from tests.faults.test_gateway import ASK, write_settings

from ripieno.ledger import Ledger
from ripieno.testing import Reply, ScriptedServer

SOON_S = 4.0
"""Two seconds as promised, and as much again for a machine that does other things; the old wait was thirty, in turn."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Let a process of its own hold the database."""
    holder = Path(__file__).with_name("lock_holder.py")
    command = [sys.executable, str(holder), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield
        finally:
            process.stdin.close()
            process.wait()


async def ask(client: ClientSession, served: Served, body: bytes = ASK) -> tuple[int, str, float]:
    """Status, error code, and the time to the whole answer."""
    started = time.monotonic()
    url, headers = f"{served.address}/v1/chat/completions", {"content-type": "application/json"}
    async with client.post(url, data=body, headers=headers) as response:
        text = await response.text()
    code = json.loads(text)["error"]["code"] if response.status != 200 and text.startswith("{") else ""
    return response.status, code, time.monotonic() - started


async def look_ready(client: ClientSession, served: Served) -> tuple[int, float]:
    started = time.monotonic()
    async with client.get(f"{served.address}/readyz") as response:
        await response.read()
    return response.status, time.monotonic() - started


async def wait_until_ready(client: ClientSession, served: Served) -> None:
    async with asyncio.timeout(HANG_S):
        while (await look_ready(client, served))[0] != 200:
            pass


async def test_fifty_requests_at_a_locked_ledger_are_refused_together_and_nothing_is_lost(
    serve_in: ServeIn, tmp_path: Path
) -> None:
    with ScriptedServer() as good:
        write_settings(tmp_path, good)
        served = serve_in(tmp_path)
        async with ClientSession(connector=TCPConnector(limit=0)) as client:
            assert (await ask(client, served))[0] == 200
            with held(tmp_path / "ledger.db"):
                asking = [asyncio.create_task(ask(client, served)) for _ in range(50)]
                ready, told_s = await look_ready(client, served)
                assert ready == 503, "readiness is told before the first request is refused"
                first = await asyncio.gather(*asking)
                called = len(good.seen)
                later = await asyncio.gather(*(ask(client, served) for _ in range(50)))
                assert (await look_ready(client, served))[0] == 503
            assert Counter(status for status, _, _ in (*first, *later)) == {503: 100}
            assert {code for _, code, _ in (*first, *later)} == {"ledger_unavailable"}
            assert max(took for _, _, took in (*first, *later)) < SOON_S
            assert told_s < SOON_S / 2
            assert len(good.seen) == called, "while the fault is known no worker is paid for an answer nobody gets"
            await wait_until_ready(client, served)
            assert (await ask(client, served))[0] == 200
        served.process.terminate()
        served.process.communicate()
        with Ledger(served.ledger_url) as ledger:
            ledger.verify()
            assert ledger.count("decided") == 2, "what was refused does not appear later"
            runs = [stored.entry.id for stored in ledger.read(kinds=("executed",))]
            assert len(runs) == len(set(runs)) == called + 1, "what workers were paid for is recorded, once"


async def test_a_slow_worker_does_not_delay_the_refusal(serve_in: ServeIn, tmp_path: Path) -> None:
    """Its call is cancelled: without a recorded decision no answer may be given."""
    with ScriptedServer([Reply(), Reply(hangs=True)]) as slow:
        write_settings(tmp_path, slow)
        served = serve_in(tmp_path)
        stream = json.dumps(json.loads(ASK) | {"stream": True}).encode()
        async with ClientSession() as client:
            assert (await ask(client, served))[0] == 200
            with held(tmp_path / "ledger.db"):
                found = await asyncio.gather(ask(client, served), ask(client, served, stream))
            assert [(status, code) for status, code, _ in found] == [(503, "ledger_unavailable")] * 2
            assert max(took for _, _, took in found) < SOON_S


async def test_pages_and_reads_answer_while_the_ledger_is_locked(serve_in: ServeIn, tmp_path: Path) -> None:
    with ScriptedServer() as good:
        write_settings(tmp_path, good)
        served = serve_in(tmp_path)
        async with ClientSession() as client:
            url, headers = f"{served.address}/v1/chat/completions", {"content-type": "application/json"}
            async with client.post(url, data=ASK, headers=headers) as response:
                decision = response.headers["x-ripieno-decision"]
            async with client.get(f"{served.address}/v1/runs/{decision}") as run:
                assert run.status == 200, "a read waits until the run is written"
            headers["x-api-key"] = next(tmp_path.rglob("admin.key")).read_text().strip()
            with held(tmp_path / "ledger.db"):
                started = time.monotonic()
                async with client.get(f"{served.address}/v1/runs/{decision}") as run:
                    assert run.status == 200, await run.text()
                feedback = json.dumps({"decision": decision, "quality": 1.0})
                async with client.post(f"{served.address}/v1/feedback", data=feedback, headers=headers) as refused:
                    assert refused.status == 503
                async with client.post(f"{served.address}/admin/keys", data='{"name": "k"}', headers=headers) as key:
                    assert key.status == 503
                assert time.monotonic() - started < 3 * SOON_S


async def test_a_spooling_gateway_stays_ready_and_fast_while_the_ledger_is_locked(
    serve_in: ServeIn, tmp_path: Path
) -> None:
    with ScriptedServer() as good:
        write_settings(tmp_path, good, ledger=['on_fault = "spool"'])
        served = serve_in(tmp_path)
        async with ClientSession() as client:
            assert (await ask(client, served))[0] == 200
            with held(tmp_path / "ledger.db"):
                found = await asyncio.gather(*(ask(client, served) for _ in range(20)))
                again = [await ask(client, served) for _ in range(5)]
                assert (await look_ready(client, served))[0] == 200
            assert {status for status, _, _ in (*found, *again)} == {200}
            assert sum(took for _, _, took in again) < SOON_S, "only the first ones wait for the lock"
        served.process.terminate()
        served.process.communicate()
        with Ledger(served.ledger_url) as ledger:
            ledger.verify()
            assert ledger.count("decided") == 26
