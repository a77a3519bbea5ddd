"""A client that reads slowly slows its worker down: the gateway buffers only a little."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.integration.conftest import open_gateway

from ripieno.app import Installation

EVENTS = 2500
PADDING = "x" * 16_000
"""Part of each event that is no text, as the answer of a step has at most a million characters."""
CARDS = ("", "has_effects = true")
MOST_BETWEEN = 24 * 2**20
"""Bytes: what the kernel may hold of two connections (6 MB to receive, 4 MB to send, each), and a little of ours."""


@dataclass
class Upstream:
    """A worker's server that sends as fast as it can."""

    port: int = 0
    sent: int = 0
    """Bytes that the kernel took."""
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: *(\d+)", head.lower())
        await reader.readexactly(int(found.group(1)) if found else 0)
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        try:
            for nth in range(EVENTS):
                writer.write(make_event({"content": f"{nth} ", "padding": PADDING}, None))
                await writer.drain()
                self.sent += len(PADDING)
            writer.write(make_event({}, "stop") + b"data: [DONE]\n\n")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.done.set()
            writer.close()


def make_event(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


@asynccontextmanager
async def open_upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def open_stalled(card: str) -> AsyncIterator[tuple[Installation, Upstream, socket.socket]]:
    """A gateway that is answering a client which has stopped to read."""
    async with open_upstream() as upstream:
        Path("ripieno.toml").write_text(
            "[ledger]\nurl = 'sqlite:///ledger.db'\n"
            f"[providers.a]\nkind = 'openai'\nbase_url = 'http://127.0.0.1:{upstream.port}/v1'\n"
            f"[workers.a]\nprovider = 'a'\nprice = 'free'\nprivacy = 'local'\n{card}\n"
        )
        async with open_gateway() as (app, address, _):
            with closing(socket.socket()) as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
                slow.setblocking(False)
                await begin_reading(slow, int(address.rpartition(":")[2]))
                stopped, before = asyncio.create_task(upstream.done.wait()), -1
                while upstream.sent != before:  # until the worker's server can send no more
                    before = upstream.sent
                    await asyncio.wait({stopped}, timeout=0.5)
                assert not stopped.done(), "the gateway took all that the worker could send"
                assert upstream.sent < MOST_BETWEEN
                yield app, upstream, slow
                await stopped


async def begin_reading(slow: socket.socket, port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, ("127.0.0.1", port))
    ask = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "Write a lot."}]}
    body = json.dumps(ask).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    await loop.sock_sendall(slow, head + body)
    assert (await loop.sock_recv(slow, 1000)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("card", CARDS, ids=["one call", "steps"])
async def test_a_slow_client_holds_up_a_fast_worker(card: str) -> None:
    async with open_stalled(card) as (_, upstream, slow):
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        end = b""
        async with asyncio.timeout(120):
            while part := await asyncio.get_running_loop().sock_recv(slow, 1 << 20):
                end = (end + part)[-200_000:]
        assert f'"{EVENTS - 1} "'.encode() in end, "the rest comes when the client reads"
        assert b"data: [DONE]" in end
        assert upstream.sent == EVENTS * len(PADDING)


@pytest.mark.parametrize("card", CARDS, ids=["one call", "steps"])
async def test_a_slow_client_that_leaves_ends_the_call(card: str) -> None:
    async with open_stalled(card) as (app, upstream, slow):
        slow.close()
        async with asyncio.timeout(60):
            await upstream.done.wait()
            decision = app.ledger.decisions.last()
            while not (runs := app.ledger.runs.of_decision(str(decision))):  # noqa: ASYNC110  # the run goes with the next commit
                await asyncio.sleep(0)
        (call,) = runs[0].calls
        assert (call.worker, call.failure) == ("a", "cancelled")
        assert call.usage.output_tokens, "what had come is counted"
        assert upstream.sent < MOST_BETWEEN
