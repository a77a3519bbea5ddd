"""Faults that a gateway survives: its own death, a full or locked ledger, and hostile clients."""

import asyncio
import io
import json
import os
import random
import resource
import signal
import socket
import sqlite3
import struct
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession, TCPConnector
from tests.conftest import HANG_S
from tests.faults.conftest import Served, ServeIn

from ripieno.ledger import Ledger
from ripieno.testing import ReceivedRequest, Reply, ScriptedServer

JSON = {"content-type": "application/json"}
ASK = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}).encode()


def write_settings(
    folder: Path, *servers: ScriptedServer, gateway: Sequence[str] = (), ledger: Sequence[str] = ()
) -> None:
    lines = [
        f'home = "{folder}/home"',
        "[gateway]",
        *gateway,
        "[ledger]",
        f'url = "sqlite:///{folder}/ledger.db"',
        *ledger,
    ]
    for index, server in enumerate(servers):
        lines += [f"[providers.p{index}]", 'kind = "openai"', f'base_url = "{server.base_url}"']
        lines += [
            f"[workers.w{index}]",
            f'provider = "p{index}"',
            f"usd_per_call = {index + 1}e-3",
            "max_concurrency = 64",
        ]
    (folder / "ripieno.toml").write_text("\n".join(lines))


async def ask(client: ClientSession, served: Served, body: bytes = ASK) -> tuple[int, str | None]:
    """Status, and the decision that the answer names."""
    async with client.post(f"{served.address}/v1/chat/completions", data=body) as response:
        await response.read()
        return response.status, response.headers.get("x-ripieno-decision")


async def load(served: Served, answered: list[str]) -> None:
    """Ask, and ask again, until the gateway is gone."""
    async with ClientSession(headers=JSON) as client:
        while True:
            try:
                status, decision = await ask(client, served)
            except (ClientConnectionError, ConnectionError):
                return
            assert status == 200
            assert decision is not None
            answered.append(decision)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_a_kill_the_ledger_holds_the_decision_of_every_answer(
    serve_in: ServeIn, tmp_path: Path, seed: int
) -> None:
    with ScriptedServer() as good:
        write_settings(tmp_path, good)
        served = serve_in(tmp_path)
        answered: list[str] = []
        loads = [asyncio.create_task(load(served, answered)) for _ in range(8)]
        least = random.Random(seed).randint(30, 300)
        while len(answered) < least:
            await asyncio.wait(loads, timeout=0.002)
        served.process.kill()
        await asyncio.gather(*loads)
        with Ledger(served.ledger_url) as ledger:
            ledger.verify()
            recorded = {stored.entry.decision.id for stored in ledger.read(kinds=("decided",))}  # type: ignore[union-attr]  # decided
            assert set(answered) <= recorded
            assert len(recorded) <= len(answered) + 8, "what was under way, and nothing more"
        again = serve_in(tmp_path)
        async with ClientSession(headers=JSON) as client:
            assert (await ask(client, again))[0] == 200


async def test_a_full_disk_refuses_and_recovers(serve_in: ServeIn, tmp_path: Path) -> None:
    with ScriptedServer() as good:
        write_settings(tmp_path, good)
        served = serve_in(tmp_path)
        async with ClientSession(headers=JSON) as client:
            statuses = await fill_disk(client, served)
            assert statuses[-1] == 503
            async with client.post(f"{served.address}/v1/chat/completions", data=ASK) as refused:
                assert (await refused.json())["error"]["code"] == "ledger_full"
                assert refused.headers["retry-after"]
            async with client.get(f"{served.address}/readyz") as ready:
                assert ready.status == 503
            limit_files(served, resource.RLIM_INFINITY)
            assert (await ask(client, served))[0] == 200
            async with client.get(f"{served.address}/readyz") as ready:
                assert ready.status == 200
        with Ledger(served.ledger_url) as ledger:
            ledger.verify()
            assert ledger.count("decided") >= statuses.count(200) + 1


async def test_a_full_disk_spools_loses_nothing_and_catches_up(serve_in: ServeIn, tmp_path: Path) -> None:
    with ScriptedServer() as good:
        write_settings(tmp_path, good, ledger=['on_fault = "spool"'])
        served = serve_in(tmp_path)
        async with ClientSession(headers=JSON) as client:
            limit_files(served, (tmp_path / "ledger.db").stat().st_size + 200_000)
            decisions = [await ask(client, served) for _ in range(60)]
            assert {status for status, _ in decisions} == {200}
            async with client.get(f"{served.address}/metrics") as metrics:
                waiting = [s for s in (await metrics.text()).splitlines() if s.startswith("ripieno_outbox_entries")]
                assert float(waiting[0].split()[1]) > 0
            served.process.kill()
            served.process.wait()
        again = serve_in(tmp_path)
        async with ClientSession(headers=JSON) as client:
            decisions.append(await ask(client, again))
        with Ledger(served.ledger_url) as ledger:
            ledger.verify()
            for _, decision in decisions:
                assert ledger.decisions.find(str(decision))
        assert not (tmp_path / "home" / "outbox.jsonl").exists()


async def fill_disk(client: ClientSession, served: Served) -> list[int]:
    """Ask until the ledger's files may not grow any more."""
    limit_files(served, 600_000)
    statuses = []
    for _ in range(500):
        statuses.append((await ask(client, served))[0])
        if statuses[-1] != 200:
            break
    limit_files(served, 1)  # a checkpoint gives room back, which would take the next entries
    return statuses


def limit_files(served: Served, size: int) -> None:
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_a_locked_database_spools_and_catches_up(serve_in: ServeIn, tmp_path: Path) -> None:
    with ScriptedServer() as good:
        write_settings(tmp_path, good, ledger=['on_fault = "spool"'])
        served = serve_in(tmp_path)
        async with ClientSession(headers=JSON) as client:
            assert (await ask(client, served))[0] == 200
            locking = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
            locking.execute("BEGIN IMMEDIATE")
            found = await asyncio.gather(*(ask(client, served) for _ in range(10)))
            locking.execute("COMMIT")
            locking.close()
            assert {status for status, _ in found} == {200}
            assert (await ask(client, served))[0] == 200
        served.process.terminate()
        assert served.process.wait(HANG_S) == 0
        with Ledger(served.ledger_url) as ledger:
            ledger.verify()
            assert ledger.count("decided") == 12


async def test_a_drain_finishes_running_requests(serve_in: ServeIn, tmp_path: Path) -> None:
    with ScriptedServer([Reply(text="slow words " * 200)]) as good:
        write_settings(tmp_path, good)
        served = serve_in(tmp_path)
        body = json.dumps(json.loads(ASK) | {"stream": True}).encode()
        async with ClientSession(headers=JSON) as client:
            response = await client.post(f"{served.address}/v1/chat/completions", data=body)
            await response.content.readline()
            served.process.terminate()
            rest = await response.text()
            assert rest.endswith("data: [DONE]\n\n")
        assert served.process.wait(HANG_S) == 0


async def read_stop(served: Served) -> str:
    """The line on stderr with which a gateway begins to stop."""
    assert served.process.stderr is not None
    while not (line := await asyncio.to_thread(served.process.stderr.readline)).startswith("stopping"):
        assert line, "the process ended without a word"
    return line


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_a_second_signal_ends_a_draining_gateway_at_once(
    serve_in: ServeIn, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    with ScriptedServer([Reply(hangs=True)]) as hanging:
        write_settings(tmp_path, hanging, gateway=["drain_s = 45"])
        served = serve_in(tmp_path, "--workers", str(workers))
        async with ClientSession(headers=JSON) as client:
            asked = asyncio.create_task(ask(client, served))
            assert await asyncio.to_thread(hanging.came.wait, HANG_S)
            os.killpg(served.process.pid, number)  # as a terminal does, to every process of the group
            assert await read_stop(served) == (
                "stopping: open requests have 45 s to end; a second Ctrl-C or SIGTERM ends them at once\n"
            )
            assert served.process.poll() is None
            os.killpg(served.process.pid, number)
            assert await asyncio.to_thread(served.process.wait, HANG_S) == (-number if workers == 1 else 128 + number)
            with pytest.raises(ClientConnectionError):
                await asked
        assert hanging.left.wait(HANG_S)


@pytest.mark.parametrize("workers", [1, 2])
async def test_one_signal_to_all_processes_ends_no_request(serve_in: ServeIn, tmp_path: Path, workers: int) -> None:
    """`Ctrl-C` reaches each process from the terminal, and once more from the process that watches it."""
    may_answer = threading.Event()

    def answer_late(request: ReceivedRequest) -> Reply:
        assert may_answer.wait(HANG_S)
        return Reply(text="four")

    with ScriptedServer(answer_late) as slow:
        write_settings(tmp_path, slow)
        served = serve_in(tmp_path, "--workers", str(workers))
        async with ClientSession(headers=JSON) as client:
            asked = asyncio.create_task(ask(client, served))
            assert await asyncio.to_thread(slow.came.wait, HANG_S)
            os.killpg(served.process.pid, signal.SIGINT)
            await read_stop(served)
            may_answer.set()
            assert (await asked)[0] == 200
        assert await asyncio.to_thread(served.process.wait, HANG_S) == 0


async def test_several_processes_serve_one_address_and_replace_a_dead_one(serve_in: ServeIn, tmp_path: Path) -> None:
    with ScriptedServer() as good:
        write_settings(tmp_path, good)
        served = serve_in(tmp_path, "--workers", "2")
        async with ClientSession(headers=JSON, connector=TCPConnector(force_close=True)) as client:
            assert {status for status, _ in await asyncio.gather(*(ask(client, served) for _ in range(20)))} == {200}
            kill_a_child(served)
            for _ in range(20):
                assert (await ask_again(client, served)) == 200
            async with client.get(f"{served.address}/metrics") as metrics:
                assert "ripieno_requests_total" in await metrics.text()
        served.process.terminate()
        assert served.process.wait(HANG_S) == 0
        with Ledger(served.ledger_url) as ledger:
            ledger.verify()
            assert ledger.count("decided") >= 40


def kill_a_child(served: Served) -> None:
    import psutil

    psutil.Process(served.process.pid).children()[0].kill()


async def ask_again(client: ClientSession, served: Served) -> int:
    """As a client does whose connection was cut before any answer."""
    for _ in range(50):
        try:
            return (await ask(client, served))[0]
        except (ClientConnectionError, ConnectionError):
            continue
    return 0


@pytest.fixture
def hardened(serve_in: ServeIn, tmp_path: Path) -> Served:
    """A gateway with small limits and one good worker."""
    good = ScriptedServer().__enter__()
    write_settings(tmp_path, good, gateway=["body_bytes = 1_000_000"])
    return serve_in(tmp_path)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 200_000, 400),
        (b'{"model":"auto","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"model":"auto","messages":[{"role":"user","content":"\xff\xfe"}]}', 400),
        (b"null", 400),
        (b"", 400),
        (b"x" * 50_000_000, 413),
    ],
    ids=["open_brackets", "deep_json", "invalid_utf8", "null", "nothing", "fifty_megabytes"],
)
async def test_a_body_that_is_no_request_is_refused(hardened: Served, body: bytes, status: int) -> None:
    async with ClientSession(headers=JSON) as client:
        try:
            async with client.post(f"{hardened.address}/v1/chat/completions", data=io.BytesIO(body)) as response:
                assert response.status == status
                assert (await response.json())["error"]["code"]
        except ClientConnectionError:
            assert status == 413, "the rest of a body that is too long may be cut off"
        assert (await ask(client, hardened))[0] == 200


async def test_a_chunked_body_without_end_is_refused(hardened: Served) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b"x" * 65536

    async with ClientSession(headers=JSON) as client:
        try:
            async with client.post(f"{hardened.address}/v1/chat/completions", data=parts()) as response:
                assert response.status == 413
        except ClientConnectionError:
            pass
        assert (await ask(client, hardened))[0] == 200


def speak(served: Served, data: bytes) -> bytes:
    """Send bytes as they are; gives what comes back until the connection ends."""
    host, _, port = served.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=HANG_S) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


async def test_what_is_no_http_is_refused_and_headers_cannot_be_smuggled(hardened: Served) -> None:
    assert speak(hardened, b"\x16\x03\x01\x02\x00nonsense").startswith(b"HTTP/1.1 400")
    host = b"host: localhost\r\n"
    long = b"GET / HTTP/1.1\r\n" + host + b"x-long: " + b"y" * 100_000 + b"\r\n\r\n"
    assert speak(hardened, long).startswith(b"HTTP/1.1 431")
    lengths = b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    twice = b"POST /v1/models HTTP/1.1\r\n" + host + lengths
    assert speak(hardened, twice).startswith(b"HTTP/1.1 400")
    evil = json.dumps({"model": "x\r\nset-cookie: a=b", "messages": [{"role": "user", "content": "x"}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(evil)
    answer = speak(hardened, head + evil)
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"\r\nset-cookie" not in answer.partition(b"\r\n\r\n")[0]
    async with ClientSession(headers=JSON) as client:
        assert (await ask(client, hardened))[0] == 200


async def test_slow_clients_delay_no_other_client(hardened: Served) -> None:
    host, _, port = hardened.address.removeprefix("http://").partition(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(300)]
    for connection in slow:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 100\r\n")
    async with ClientSession(headers=JSON) as client:
        found = await asyncio.gather(*(ask(client, hardened) for _ in range(20)))
        assert {status for status, _ in found} == {200}
    for connection in slow:  # leave without a word
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


async def test_a_thousand_bad_keys_are_refused_and_the_good_one_is_not(serve_in: ServeIn, tmp_path: Path) -> None:
    with ScriptedServer() as good:
        write_settings(tmp_path, good)
        served = serve_in(tmp_path, environment={"RIPIENO_GATEWAY__API_KEY": "the-master-key"})
        url = f"{served.address}/v1/chat/completions"
        async with ClientSession(headers=JSON, connector=TCPConnector(limit=200)) as client:

            async def knock(index: int) -> int:
                async with client.post(url, data=ASK, headers={"x-api-key": f"bad-{index}"}) as response:
                    assert "the-master-key" not in await response.text()
                    return response.status

            found = await asyncio.gather(*(knock(index) for index in range(1000)))
            assert set(found) == {401}
            async with client.post(url, data=ASK, headers={"authorization": "Bearer the-master-key"}) as response:
                assert response.status == 200
        served.process.terminate()
        assert "the-master-key" not in served.process.communicate()[1]


async def test_many_open_streams_are_held_at_once(serve_in: ServeIn, tmp_path: Path) -> None:
    with ScriptedServer([Reply(hangs=True)]) as waiting:
        write_settings(tmp_path, waiting, gateway=["max_in_flight = 400"])
        text = (tmp_path / "ripieno.toml").read_text().replace("max_concurrency = 64", "max_concurrency = 1000")
        (tmp_path / "ripieno.toml").write_text(text)
        served = serve_in(tmp_path)
        body = json.dumps(json.loads(ASK) | {"stream": True}).encode()
        async with ClientSession(headers=JSON, connector=TCPConnector(limit=0)) as client:
            streams = [asyncio.create_task(ask(client, served, body)) for _ in range(400)]
            while len(waiting.seen) < 400:
                done, _ = await asyncio.wait(streams, timeout=0.1)
                assert not done, [each.result() for each in done]
            status, _ = await ask(client, served)
            assert status == 503, "one more is turned away"
            async with client.get(f"{served.address}/healthz") as health:
                assert health.status == 200
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)


async def test_logs_are_json_where_asked_and_never_hold_what_was_asked(serve_in: ServeIn, tmp_path: Path) -> None:
    with ScriptedServer([Reply(text="the answer itself"), Reply(status=400)]) as good:
        write_settings(tmp_path, good)
        served = serve_in(tmp_path, before=("--verbose", "--log-format", "json"))
        async with ClientSession(headers=JSON) as client:
            _, decision = await ask(client, served)
            assert (await ask(client, served))[0] == 400
        served.process.terminate()
        said = served.process.communicate(timeout=HANG_S)[1]
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    (answered, refused) = [line for line in lines if line.get("route") == "POST /v1/chat/completions"]
    assert answered["message"] == f"request {decision}: POST /v1/chat/completions 200, answered by w0"
    assert (answered["decision"], answered["worker"], answered["status"]) == (decision, "w0", 200)
    assert answered["seconds"] > 0
    assert (refused["worker"], refused["status"], refused["code"]) == (None, 400, "provider_rejected")
    assert "What is 2 + 2" not in said
    assert "the answer itself" not in said
