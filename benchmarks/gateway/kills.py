"""One of two workers is killed again and again under load: what do users see?

    python benchmarks/gateway/kills.py [--seconds 20] [--lanes 8]

Whole answers and streams of several words go through `auto`. Counted are answers without status 200, and streams that
break off, before and after their first content. The second half runs with `gateway.resume_streams`.
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout

HERE = Path(__file__).parent
CHUNKS = 12


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_worker(port: int) -> "subprocess.Popen[bytes]":
    options = ["--delay-ms", "5", "--chunks", str(CHUNKS), "--interval-ms", "15"]
    return subprocess.Popen([sys.executable, str(HERE / "upstream.py"), str(port), *options])


@contextmanager
def serving(folder: Path, ports: list[int], *, resumes: bool) -> Iterator[str]:
    port, lines = find_port(), [f'home = "{folder}"', "[gateway]", f"resume_streams = {str(resumes).lower()}"]
    for name, worker, price in zip("ab", ports, (1, 2), strict=True):
        lines += [f"[providers.{name}]", 'kind = "openai"', f'base_url = "http://127.0.0.1:{worker}/v1"']
        lines += [f"[workers.{name}]", f'provider = "{name}"', 'model = "mock"', f"usd_per_call = {price}e-4"]
        lines += ["max_concurrency = 64"]
    settings = folder / "ripieno.toml"
    settings.write_text("\n".join(lines))
    command = [sys.executable, "-m", "ripieno.cli", "--config", str(settings), "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def ask(client: ClientSession, address: str, seen: Counter[str], *, is_stream: bool) -> None:
    kind = "streams" if is_stream else "whole answers"
    body: dict[str, object] = {"model": "auto", "messages": [{"role": "user", "content": "Say some words."}]}
    body |= {"stream": is_stream, "ripieno": {"preference": 0.0}}  # the killed worker is cheaper
    text = ""
    try:
        async with client.post(f"{address}/v1/chat/completions", json=body) as response:
            text = (await response.read()).decode()
            is_good = response.status == 200 and (not is_stream or text.endswith("data: [DONE]\n\n"))
    except ClientError:
        is_good = False
    seen[kind] += 1
    if is_good:
        if is_stream and '"authors":' in text:
            seen["streams that another worker continued"] += 1
        return
    has_content = is_stream and any(
        json.loads(line[6:]).get("choices") for line in text.splitlines() if line[:7] == "data: {"
    )
    seen[f"{kind} that broke off after content" if has_content else f"{kind} that failed before content"] += 1


async def kill_often(worker: list["subprocess.Popen[bytes]"], port: int, ends: float, rng: random.Random) -> int:
    kills = 0
    while time.monotonic() < ends:
        await asyncio.sleep(rng.uniform(0.3, 0.9))
        worker[0].kill()
        worker[0].wait()
        kills += 1
        await asyncio.sleep(rng.uniform(0.1, 0.4))
        worker[0] = start_worker(port)
    return kills


async def load(address: str, *, seconds: float, lanes: int, worker: list["subprocess.Popen[bytes]"], port: int) -> None:
    seen: Counter[str] = Counter()
    ends = time.monotonic() + seconds

    async def lane(nth: int) -> None:
        while time.monotonic() < ends:
            await ask(client, address, seen, is_stream=nth % 2 == 1)

    async with ClientSession(timeout=ClientTimeout(total=60)) as client:
        killing = asyncio.create_task(kill_often(worker, port, ends, random.Random(0)))
        await asyncio.gather(*map(lane, range(lanes)))
        print(f"  kills: {await killing}")
    for name, count in sorted(seen.items()):
        print(f"  {name}: {count}")


def _kill_last(worker: list["subprocess.Popen[bytes]"]) -> None:
    worker[0].kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--lanes", type=int, default=8)
    given = parser.parse_args()
    ports = [find_port(), find_port()]
    with ExitStack() as stack:
        killed = [start_worker(ports[0])]
        steady = start_worker(ports[1])
        stack.callback(steady.kill)
        stack.callback(_kill_last, killed)
        for resumes in (False, True):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            print(f"resume_streams = {str(resumes).lower()}")
            with serving(folder, ports, resumes=resumes) as address:
                asyncio.run(load(address, seconds=given.seconds, lanes=given.lanes, worker=killed, port=ports[0]))


if __name__ == "__main__":
    main()
