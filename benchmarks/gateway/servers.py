"""ASGI servers side by side: hostile shapes, half-open clients, slow heads, and CPU per request.

    python benchmarks/gateway/servers.py [--seconds 3] [--slow-s 40]

Each server runs the same small app. Only those that are installed take part. A shape counts as taken if the app sees a
request of it that a strict server refuses, or if a good one gets no success.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.gateway.load import run_load
from benchmarks.gateway.shapes import SHAPES, Shape

OURS = """
import asyncio, socket, sys, uvloop
from ripieno.gateway.asgi import HttpApp
from ripieno.gateway.http import Response
from ripieno.gateway.listening import HttpServer
async def answer(request): return Response(b'{"ok":true}')
async def main():
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096); listener.setblocking(False)
    await HttpServer(HttpApp(answer, lambda status, said, _: Response(said.encode(), status=status))).start(listener)
    await asyncio.Event().wait()
uvloop.run(main())
"""
FORMER = """
import asyncio, sys, uvloop
from ripieno.gateway.http import Response
from ripieno.gateway.http_server import HttpServer
async def answer(request): return Response(b'{"ok":true}')
async def main():
    server = HttpServer(answer, lambda status, said, _: Response(said.encode(), status=status))
    listening = await asyncio.get_running_loop().create_server(
        server.make_protocol, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await listening.serve_forever()
uvloop.run(main())
"""
APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    body = b'{"ok":true}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


def list_servers(port: int, former: str | None) -> dict[str, list[str]]:
    python = sys.executable
    quiet = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "critical"]
    found = {"ripieno (uvicorn, strict)": [python, "-c", OURS, str(port)]}
    if former:
        found["ripieno's former own server"] = [python, "-c", FORMER, str(port)]
    for parser in ("httptools", "h11"):
        if find_spec("uvicorn") and find_spec(parser):
            found[f"uvicorn, {parser}"] = [python, "-m", "uvicorn", "served:app", "--http", parser, *quiet]
    if find_spec("granian"):
        found["granian"] = [python, "-m", "granian", "--interface", "asginl", "--no-ws", "--no-log",
                            "--host", "127.0.0.1", "--port", str(port), "served:app"]  # fmt: skip
    if find_spec("hypercorn"):
        found["hypercorn"] = [python, "-m", "hypercorn", "-k", "uvloop", "-b", f"127.0.0.1:{port}", "served:app"]
    return found


@contextmanager
def started(command: list[str], port: int, former: str | None) -> Iterator[psutil.Process]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "served.py").write_text(APP)
        own = former if "http_server" in " ".join(command) else None
        path = os.pathsep.join(each for each in (own, os.environ.get("PYTHONPATH"), str(folder)) if each)
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            for _ in range(200):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.05)
            yield psutil.Process(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def speak(port: int, sent: bytes, *, within_s: float = 0.6) -> bytes:
    """Send bytes, and return what comes within a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    parts = []
    with suppress(OSError, TimeoutError):
        writer.write(sent)
        async with asyncio.timeout(within_s):
            while part := await reader.read(65536):
                parts.append(part)
    writer.transport.abort()
    return b"".join(parts)


def judge(shape: Shape, said: bytes) -> str | None:
    """What a server did wrong; None if nothing."""
    statuses = [part[:3].decode("latin-1") for part in said.split(b"HTTP/1.1 ")[1:]]
    answered = [status for status in statuses if status.startswith("2")]
    if shape.is_taken:
        return None if answered else f"{shape.name}: {statuses[0] if statuses else 'no answer'}"
    return f"{shape.name}{' (two requests)' if len(answered) > 1 else ''}" if answered else None


async def try_pipeline(port: int) -> str:
    one = b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n"
    said = await speak(port, one * 1000, within_s=3.0)
    return str(said.count(b"HTTP/1.1 200"))


async def try_half_open(port: int, process: psutil.Process) -> str:
    """Milliseconds to answer one client while 2,000 others have sent half a head, and megabytes for them."""
    before = memory(process)
    clients = []
    for _ in range(2000):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /a HTTP/1.1\r\nhost: localhost\r\ncontent-le")
        clients.append(writer)
    await asyncio.sleep(0.5)
    used = memory(process) - before
    began = time.perf_counter()
    said = await speak(port, b"GET /a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", within_s=5.0)
    took = (time.perf_counter() - began) * 1e3
    for writer in clients:
        writer.transport.abort()
    return f"{took:.1f} ms, {used:.0f} MB" if b" 200" in said else "no answer"


async def try_slow(port: int, sent: bytes, most_s: float) -> str:
    """Seconds until the server ends a connection whose request does not come."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        async with asyncio.timeout(most_s):
            while await reader.read(65536):
                pass
        return f"{time.perf_counter() - began:.0f} s"
    except TimeoutError:
        return f"over {most_s:.0f} s"
    except OSError:
        return f"{time.perf_counter() - began:.0f} s"
    finally:
        writer.transport.abort()


def memory(process: psutil.Process) -> float:
    return float(sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])) / 2**20


def cpu_s(process: psutil.Process) -> float:
    times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
    return float(sum(each.user + each.system for each in times))


async def measure(name: str, command: list[str], port: int, options: argparse.Namespace) -> list[str]:
    with started(command, port, options.former) as process:
        faults = [fault for shape in SHAPES if (fault := judge(shape, await speak(port, shape.sent)))]
        pipeline = await try_pipeline(port)
        costs = []
        body = [json.dumps({"text": "x" * 2000}).encode()]
        for _ in range(3):
            before = cpu_s(process)
            seen = await run_load(port, "/a", body, lanes=16, seconds=options.seconds, headers={})
            costs.append((cpu_s(process) - before) * 1e6 / max(len(seen.latency_s), 1))
        half_open = await try_half_open(port, process)
        head = b"POST /a HTTP/1.1\r\nhost: localhost\r\n"
        slow = await asyncio.gather(
            try_slow(port, head + b"content-le", options.slow_s),
            try_slow(port, head + b"content-length: 10\r\n\r\nabc", options.slow_s),
        )
    print(f"measured {name}", file=sys.stderr, flush=True)
    cells = [f"{sorted(costs)[1]:.0f} ({min(costs):.0f}-{max(costs):.0f})", pipeline, half_open, *slow]
    return [name, *cells, str(len(faults)), "; ".join(faults) or "none"]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--slow-s", type=float, default=40.0)
    parser.add_argument("--only", default="", help="servers whose name holds this text")
    parser.add_argument("--former", help="folder `src` of a version with a server of its own, to compare")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print("| server | CPU us per request | answers to 1,000 in one go | one client beside 2,000 half-open | half a "
          "head ends after | half a body | shapes taken wrongly | which |\n|" + " --- |" * 8)  # fmt: skip
    for name, command in list_servers(free_port(), options.former).items():
        if options.only not in name:
            continue
        port = int(next(part for part in command if part.isdigit() or "127.0.0.1:" in part).rpartition(":")[2])
        print(f"| {' | '.join(await measure(name, command, port, options))} |", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    uvloop.run(main())
