"""Servers that misbehave on the wire, and gateways as processes of their own."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.conftest import serve

__all__ = ["serve"]
"""The fixture of other folders that tests here use, too."""

Misbehave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class FaultyServer:
    """A server whose every answer is one fault."""

    port: int = 0
    asked: int = 0


@contextmanager
def misbehaving(fault: Misbehave) -> Iterator[FaultyServer]:
    """Serve one fault, again and again, from a thread of its own."""
    server = FaultyServer()
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: *(\d+)", head.lower())
            await reader.readexactly(int(found.group(1)) if found else 0)
            server.asked += 1
            await fault(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(answer, "127.0.0.1", 0)

    async def stop(running: asyncio.Server) -> None:
        running.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    running = asyncio.run_coroutine_threadsafe(start(), loop).result()
    server.port = running.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(stop(running), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(slots=True)
class Served:
    """A gateway in a process of its own."""

    address: str
    process: "subprocess.Popen[str]"
    folder: Path

    @property
    def ledger_url(self) -> str:
        return f"sqlite:///{self.folder}/ledger.db"


ServeIn = Callable[..., Served]


@pytest.fixture
def serve_in() -> Iterator[ServeIn]:
    """Start `ripieno serve` in a folder that holds a `ripieno.toml`; all end with the test."""
    started: list[Served] = []

    def start(
        folder: Path,
        *options: str,
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Served:
        process = subprocess.Popen(
            [sys.executable, "-m", "ripieno.cli", *before, "serve", "--port", "0", *options],
            cwd=folder, env=os.environ | dict(environment or {}),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        found = re.match(r"(https?://\S+)/v1", process.stdout.readline())
        assert found is not None, process.communicate()[1]
        served = Served(found.group(1), process, folder)
        started.append(served)
        return served

    yield start
    for served in started:
        with suppress(ProcessLookupError):
            os.killpg(served.process.pid, signal.SIGKILL)
        served.process.communicate()


def pack_completion(text: str) -> bytes:
    """A whole answer as a good server gives it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def pack_event(text: str) -> bytes:
    """One chunk of a stream as a good server sends it."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
