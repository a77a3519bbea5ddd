"""A soak with faults on: a gateway over three workers, of which two misbehave, under load for minutes.

    python benchmarks/gateway/soak.py [--minutes 10] [--lanes 16]

One worker in three answers one request in five badly (500, 429, cut off, hanging, nonsense), one is killed and started
anew every 20 s, one is well. The gateway itself is not touched. Prints what was asked, answered, failed over and lost,
and the gateway's memory at the start and at the end. A request counts as lost that is not answered with 200.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.gateway.compare import free_port, make_asks
from benchmarks.gateway.load import Seen, run_load

from ripieno.domain import Executed
from ripieno.ledger import Ledger

HERE = Path(__file__).parent


def write_settings(folder: Path, ports: list[int]) -> Path:
    lines = [f'home = "{folder}/home"', "[ledger]", f'url = "sqlite:///{folder}/ledger.db"']
    for name, port in zip(("faulty", "dying", "well"), ports, strict=True):
        lines += [f"[providers.{name}]", 'kind = "openai"', f'base_url = "http://127.0.0.1:{port}/v1"']
        lines += [
            "connect_timeout_s = 1.0",
            "first_token_timeout_s = 5.0",
            "idle_timeout_s = 5.0",
            "total_timeout_s = 5.0",
        ]
        lines += [f"[workers.{name}]", f'provider = "{name}"', 'model = "mock"', "max_concurrency = 64"]
        lines += [f"usd_per_call = {1 + len(lines)}e-5"]
    path = folder / "ripieno.toml"
    path.write_text("\n".join(lines))
    return path


def start_upstream(port: int, *options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(HERE / "upstream.py"), str(port), "--delay-ms", "20", "--interval-ms", "1", *options]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


async def kill_again_and_again(port: int, ends: float) -> int:
    """A worker that dies every twenty seconds, and is back three seconds later; gives how often."""
    deaths = 0
    while time.monotonic() < ends:
        process = start_upstream(port)
        await asyncio.sleep(min(20.0, max(ends - time.monotonic(), 0.0)))
        process.kill()
        process.wait()
        deaths += 1
        await asyncio.sleep(3.0)
    return deaths


async def soak(folder: Path, options: argparse.Namespace) -> None:
    ports = [free_port() for _ in range(3)]
    upstreams = [start_upstream(ports[0], "--fault-percent", "20"), start_upstream(ports[2])]
    ends = time.monotonic() + options.minutes * 60
    dying = asyncio.create_task(kill_again_and_again(ports[1], ends))
    command = [
        sys.executable,
        "-m",
        "ripieno.cli",
        "--config",
        str(write_settings(folder, ports)),
        "serve",
        "--port",
        "0",
    ]
    gateway = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert gateway.stdout is not None
    found = re.search(rb":(\d+)/v1", await gateway.stdout.readline())
    assert found is not None
    port, process = int(found.group(1)), psutil.Process(gateway.pid)
    try:
        await run_load(port, "/v1/chat/completions", make_asks("auto"), lanes=options.lanes, seconds=5.0, headers={})
        rss = [process.memory_info().rss / 2**20]
        asks = [(make_asks("auto"), options.lanes), (make_asks("auto", stream=True), options.lanes // 2)]
        total = Seen()
        while (left := ends - time.monotonic()) > 1:
            part = min(left, 60.0)
            for seen in await asyncio.gather(
                *(run_load(port, "/v1/chat/completions", b, lanes=n, seconds=part, headers={}) for b, n in asks)
            ):
                total.latency_s += seen.latency_s
                total.bad += seen.bad
                total.why += seen.why
            rss.append(process.memory_info().rss / 2**20)
            print(f"{len(total.latency_s)} answered, {total.bad} lost, RSS {rss[-1]:.0f} MB", flush=True)
        deaths = await dying
    finally:
        gateway.terminate()
        await gateway.wait()
        for upstream in upstreams:
            upstream.kill()
            upstream.wait()
    report(folder, total, rss, deaths)


def report(folder: Path, total: Seen, rss: list[float], deaths: int) -> None:
    with Ledger(f"sqlite:///{folder}/ledger.db") as ledger:
        verified = ledger.verify()
        entries = (stored.entry for stored in ledger.read(kinds=("executed",)))
        runs = [entry.run for entry in entries if isinstance(entry, Executed)]
    failures = Counter(str(call.failure) for run in runs for call in run.calls if call.failure is not None)
    failed_over = sum(len(run.calls) > 1 and run.calls[-1].failure is None for run in runs)
    facts = {
        "answered": len(total.latency_s), "lost": total.bad, "lost by": dict(total.why), "failed over": failed_over,
        "deaths of a worker": deaths,
        "failed calls": dict(failures), "ledger entries": verified.entries,
        "p50 ms": round(total.quantile_ms(0.5), 1), "p99 ms": round(total.quantile_ms(0.99), 1),
        "RSS MB at the start": round(rss[0], 1), "RSS MB at the end": round(rss[-1], 1),
    }  # fmt: skip
    print(json.dumps(facts, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--lanes", type=int, default=16)
    options = parser.parse_args()
    with contextlib.suppress(OSError):
        os.nice(1)
    with tempfile.TemporaryDirectory() as name:
        uvloop.run(soak(Path(name), options))


if __name__ == "__main__":
    main()
