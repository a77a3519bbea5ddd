"""Ten thousand open streams at once: memory for each, and whether the gateway still answers others.

    python benchmarks/gateway/streams.py [--streams 10000]

The upstream sends a chunk a second; the last line tells how many streams got a chunk in the last five seconds.
"""

import argparse
import asyncio
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.gateway.compare import free_port, make_ask

from ripieno.providers.http import HttpClient

HERE = Path(__file__).parent


class Listener(asyncio.Protocol):
    """One client that reads a stream, and remembers when the last chunk came."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]  # a stream's transport

    def data_received(self, data: bytes) -> None:
        if b"data:" in data:
            self.last = time.monotonic()


def write_settings(folder: Path, upstream: int, streams: int) -> Path:
    path = folder / "ripieno.toml"
    path.write_text(
        f'home = "{folder}/home"\n[gateway]\nmax_in_flight = {streams + 10}\n'
        f'[ledger]\nurl = "sqlite:///{folder}/l.db"\n'
        f'[providers.up]\nkind = "openai"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n'
        f'[workers.w]\nprovider = "up"\nmax_concurrency = {streams + 10}\n'
    )
    return path


async def measure(folder: Path, streams: int) -> None:
    upstream = free_port()
    command = [sys.executable, str(HERE / "upstream.py"), str(upstream), "--chunks", "600", "--interval-ms", "1000"]
    serving = await asyncio.create_subprocess_exec(*command)
    settings = write_settings(folder, upstream, streams)
    command = [sys.executable, "-m", "ripieno.cli", "--config", str(settings), "serve", "--port", "0"]
    gateway = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert gateway.stdout is not None
    found = re.search(rb":(\d+)/v1", await gateway.stdout.readline())
    assert found is not None
    port, process = int(found.group(1)), psutil.Process(gateway.pid)
    body = make_ask("w", "Tell me everything.", stream=True)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    loop, listeners = asyncio.get_running_loop(), []
    try:
        before = process.memory_info().rss / 2**20
        for number in range(streams):
            _, listener = await loop.create_connection(lambda: Listener(head + body), "127.0.0.1", port)
            listeners.append(listener)
            if number % 100 == 0:
                await asyncio.sleep(0.1)
        await asyncio.sleep(15.0)
        after, now = process.memory_info().rss / 2**20, time.monotonic()
        began = time.perf_counter()
        status = (await HttpClient(f"http://127.0.0.1:{port}").fetch("GET", "/readyz")).status
        waited_ms = (time.perf_counter() - began) * 1e3
        alive = sum(now - listener.last < 5.0 for listener in listeners)
        print(f"{streams} streams: RSS {before:.0f} -> {after:.0f} MB, {(after - before) * 1024 / streams:.1f} kB each")
        print(f"readyz answers {status} in {waited_ms:.0f} ms; {alive} streams had a chunk in the last 5 s")
    finally:
        gateway.kill()
        serving.kill()
        await gateway.wait()
        await serving.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=10_000)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name:
        uvloop.run(measure(Path(name), options.streams))


if __name__ == "__main__":
    main()
