"""Faulty upstreams: while one worker lives, no request fails, and the ledger records each fault."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession
from tests.conftest import HANG_S
from tests.faults.conftest import Misbehave, misbehaving, pack_completion, pack_event

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.gateway import bind_socket, running
from ripieno.testing import Reply, ScriptedServer

JSON = {"content-type": "application/json"}
ASK = [{"role": "user", "content": "What is 2 + 2?"}]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


def say(*parts: bytes, resets: bool = False) -> Misbehave:
    """Send some bytes, then end, or reset, the connection."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if resets:
            writer.transport.abort()

    return fault


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a comment each tenth of a second, forever."""
    writer.write(STREAM)
    while not reader.at_eof():
        writer.write(b": still thinking\n\n")
        await writer.drain()
        await asyncio.wait({asyncio.ensure_future(reader.read(1))}, timeout=0.1)


async def hold_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send half a header, and nothing more."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await reader.read()


async def send_long_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send ten megabytes without a newline."""
    writer.write(STREAM + b"data: ")
    for _ in range(160):
        writer.write(b"x" * 65536)
        await writer.drain()


FAULTS: dict[str, tuple[Misbehave, str]] = {
    "resets": (say(resets=True), "unreachable"),
    "resets_mid_body": (say(HEAD + b'content-length: 500\r\n\r\n{"choices', resets=True), "unreachable"),
    "says_429": (say(b"HTTP/1.1 429 Slow\r\ncontent-length: 2\r\n\r\n{}"), "rate_limited"),
    "says_429_and_how_long": (
        say(b"HTTP/1.1 429 Slow\r\nretry-after: 30\r\ncontent-length: 2\r\n\r\n{}"),
        "rate_limited",
    ),
    "says_500": (say(b"HTTP/1.1 500 Oh\r\ncontent-length: 4\r\n\r\noops"), "server_error"),
    "breaks_its_json": (say(HEAD + b'content-length: 12\r\n\r\n{"choices":['), "bad_answer"),
    "says_html": (say(HEAD + b"content-length: 13\r\n\r\n<html></html>"), "bad_answer"),
    "lies_about_its_length": (say(HEAD + b"content-length: 9999\r\n\r\n" + pack_completion("x")), "unreachable"),
    "is_no_http": (say(b"SSH-2.0-OpenSSH_9.2\r\n"), "unreachable"),
    "drips": (drip, "timeout"),
    "holds_its_headers": (hold_headers, "timeout"),
    "sends_a_long_line": (send_long_line, "bad_answer"),
    "ends_without_a_word": (say(STREAM), "bad_answer"),
}


@asynccontextmanager
async def open_gateway(base_url: str, good: ScriptedServer, path: Path) -> AsyncIterator[tuple[Installation, str]]:
    """Open a gateway with a faulty worker, which is cheaper and comes first, and a good one."""
    patience = "connect_timeout_s = 1.0\nfirst_token_timeout_s = 0.4\nidle_timeout_s = 0.4\ntotal_timeout_s = 0.8"
    path.write_text(f"""
[ledger]
url = "sqlite:///ledger.db"
[providers.bad]
kind = "openai"
base_url = "{base_url}"
{patience}
[providers.good]
kind = "openai"
base_url = "{good.base_url}"
[workers.a]
provider = "bad"
usd_per_call = 1e-3
[workers.b]
provider = "good"
usd_per_call = 2e-3
""")
    async with Installation(load_settings()) as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener) as address:
            yield app, address


@contextmanager
def make_fault(name: str) -> Iterator[tuple[str, str]]:
    """Return the address of a fault, and the failure that the ledger should record."""
    match name:
        case "refuses":
            with ScriptedServer() as gone:
                base_url = gone.base_url
            yield base_url, "unreachable"
        case "has_no_name":
            yield "http://no-such-host.invalid/v1", "unreachable"
        case "speaks_no_tls":
            with misbehaving(say(b"plain words\r\n")) as server:
                yield f"https://127.0.0.1:{server.port}/v1", "unreachable, or timeout"
        case _:
            fault, failure = FAULTS[name]
            with misbehaving(fault) as server:
                yield f"http://127.0.0.1:{server.port}/v1", failure


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("name", [*FAULTS, "refuses", "has_no_name", "speaks_no_tls"])
async def test_a_fault_is_never_the_users(name: str, tmp_path: Path, *, streams: bool) -> None:
    good = ScriptedServer([Reply(text="from the good one")])
    with make_fault(name) as (base_url, failure), good:
        async with (
            open_gateway(base_url, good, tmp_path / "ripieno.toml") as (app, address),
            ClientSession(headers=JSON) as client,
        ):
            body = json.dumps({"model": "auto", "messages": ASK, "stream": streams})
            async with client.post(f"{address}/v1/chat/completions", data=body) as response:
                text = await response.text()
                assert response.status == 200, text
                assert response.headers["x-ripieno-worker"] == "b"
            if streams:
                assert text.endswith("data: [DONE]\n\n")
            else:
                assert json.loads(text)["choices"][0]["message"]["content"] == "from the good one"
            decision = app.ledger.decisions.last()
            assert decision is not None
            calls = app.ledger.runs.of_decision(decision)[0].calls
            assert [call.worker for call in calls] == ["a", "b"]
            assert str(calls[0].failure) in failure, calls[0]
            assert calls[0].error


@pytest.mark.parametrize("ending", ["resets", "ends", "goes_silent", "says_an_error"])
async def test_a_stream_that_breaks_after_its_first_token_ends_with_an_error(ending: str, tmp_path: Path) -> None:
    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + pack_event("one"))
        await writer.drain()
        match ending:
            case "resets":
                writer.transport.abort()
            case "goes_silent":
                await reader.read()
            case "says_an_error":
                writer.write(b'data: {"error": {"message": "overloaded"}}\n\n')
            case _:
                pass

    good = ScriptedServer([Reply(text="never asked")])
    with misbehaving(fault) as server, good:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        async with (
            open_gateway(base_url, good, tmp_path / "ripieno.toml") as (app, address),
            ClientSession(headers=JSON) as client,
        ):
            for path, ask, told in (
                ("chat/completions", {"messages": ASK}, '"error"'),
                ("messages", {"messages": ASK, "max_tokens": 9}, "event: error"),
                ("responses", {"input": "x"}, "event: response.failed"),
            ):
                body = json.dumps({"model": "a", "stream": True, **ask})
                async with client.post(f"{address}/v1/{path}", data=body) as response:
                    text = await response.text()
                assert "one" in text
                assert told in text.rstrip().rsplit("\n\n", 1)[-1]
                assert "data: [DONE]" not in text
                assert "message_stop" not in text
                assert "response.completed" not in text
            assert not good.seen
            app.health.note_success(app.runtime.pool.ids[0])


async def test_a_client_that_leaves_ends_the_call_upstream(tmp_path: Path) -> None:
    left = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + pack_event("one"))
        await writer.drain()
        await reader.read()
        loop.call_soon_threadsafe(left.set)

    good = ScriptedServer()
    with misbehaving(fault) as server, good:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        async with open_gateway(base_url, good, tmp_path / "ripieno.toml") as (app, address):
            client_to_worker = app.runtime.caller._providers["bad"]._client  # type: ignore[attr-defined]  # waits for long
            client_to_worker.timeouts = type(client_to_worker.timeouts)()
            async with ClientSession(headers=JSON) as client:
                body = json.dumps({"model": "a", "stream": True, "messages": ASK})
                response = await client.post(f"{address}/v1/chat/completions", data=body)
                assert b"one" in await response.content.readline()
                response.close()
            async with asyncio.timeout(HANG_S):
                await left.wait()
            decision = app.ledger.decisions.last()
            assert decision is not None
            assert app.ledger.runs.of_decision(decision)[0].calls[0].failure == "cancelled"
