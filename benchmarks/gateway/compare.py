"""Gateways side by side: the same upstream, load and core, one after the other, in one run.

    python benchmarks/gateway/compare.py [--seconds 4] [--litellm PATH] [--portkey PATH]
    python benchmarks/gateway/compare.py --before SRC [--rounds 4]

The gateway has the last core for itself, upstream and load the others. What to trust is CPU per request, as a ratio to
nginx in the same run; times are noisy. nginx comes from Debian's package. `--litellm` is the `litellm` command of an
environment with `litellm[proxy]`, `--portkey` the folder of the npm package `@portkey-ai/gateway`. `--before` names the
folder `src` of another version of Ripieno: both then run at once on the last core, and take turns.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.gateway.load import Seen, run_load

HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0))
SENTENCE = "Words are what a prompt is made of. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A gateway, or the bare upstream: how it is started and asked."""

    name: str
    start: list[str] | None
    port: int
    model: str
    path: str = "/v1/chat/completions"
    key: str = "none"
    headers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}", **self.headers}


@dataclass(slots=True)
class Figures:
    """What was measured of one contender."""

    start_s: float = 0.0
    rss_mb: float = 0.0
    rss_after_mb: float = 0.0
    cpu_ms: dict[str, float] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_asks(model: str, *, words: int = 240, count: int = 2000, stream: bool = False) -> list[bytes]:
    """Requests that differ in their first words, so that none is known from another."""
    text = SENTENCE * (words // 8)
    return [make_ask(model, f"Question {number}. {text}", stream=stream) for number in range(count)]


def make_ask(model: str, text: str, *, stream: bool = False) -> bytes:
    messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": text}]
    return json.dumps({"model": model, "messages": messages, "temperature": 0.2, "stream": stream}).encode()


def list_contenders(upstream: int, folder: Path, options: argparse.Namespace) -> list[Contender]:
    found = [Contender(name="direct", start=None, port=upstream, model="mock")]
    base = f"http://127.0.0.1:{upstream}"
    if nginx := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        port = free_port()
        (folder / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; error_log {folder}/nginx.err; pid {folder}/nginx.pid;"
            "events { worker_connections 1024; } http { access_log off; "
            f"client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; "
            f"uwsgi_temp_path {folder}; scgi_temp_path {folder}; "
            f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 64; }} server {{ listen 127.0.0.1:{port}; "
            'location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; '
            "proxy_buffering off; } } }"
        )
        found.append(Contender(name="nginx", start=[nginx, "-c", f"{folder}/nginx.conf"], port=port, model="mock"))
    found += [make_ripieno("ripieno named", "w0", base, folder), make_ripieno("ripieno auto", "auto", base, folder)]
    if options.litellm:
        port = free_port()
        (folder / "litellm.yaml").write_text(
            "model_list:\n- model_name: mock\n  litellm_params: {model: openai/mock, api_base: "
            f"'{base}/v1', api_key: none}}\ngeneral_settings: {{master_key: sk-a-long-enough-master-key-0123456789}}\n"
        )
        start = [options.litellm, "--config", f"{folder}/litellm.yaml", "--port", str(port), "--num_workers", "1"]
        found.append(
            Contender(
                name="LiteLLM", start=start, port=port, model="mock", key="sk-a-long-enough-master-key-0123456789",
                environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
            )
        )  # fmt: skip
    if options.portkey:
        port = free_port()
        start = ["node", f"{options.portkey}/build/start-server.js", f"--port={port}", "--headless"]
        told = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{base}/v1"}
        found.append(Contender(name="Portkey", start=start, port=port, model="mock", headers=told))
    return found


def make_ripieno(name: str, model: str, base: str, folder: Path, source: str | None = None) -> Contender:
    """Ripieno with four workers and a key; of another version if `source` is its folder `src`."""
    port, place = free_port(), folder / name.replace(" ", "-")
    settings = place.with_suffix(".toml")
    settings.write_text(
        f'home = "{place}"\n[ledger]\nurl = "sqlite:///{place}.db"\n'
        f'[providers.up]\nkind = "openai"\nbase_url = "{base}/v1"\n'
        + "".join(
            f'[workers.w{i}]\nprovider = "up"\nmodel = "mock"\nmax_concurrency = 256\nusd_per_call = {i + 1}e-3\n'
            for i in range(4)
        )
    )
    command = [sys.executable, "-m", "ripieno.cli", "--config", str(settings)]
    environment = {"PYTHONPATH": source} if source else {}
    key = make_key(command, environment)
    start = [*command, "serve", "--port", str(port)]
    return Contender(name=name, start=start, port=port, model=model, key=key, environment=environment)


def make_key(command: list[str], environment: Mapping[str, str]) -> str:
    """A virtual key with a budget and rates, so that what they cost is in the figures."""
    limits = ["--usd-per-day", "100000", "--requests-per-minute", "10000000"]
    made = subprocess.run(
        [*command, "keys", "create", "bench", *limits],
        capture_output=True, text=True, check=True, env=os.environ | dict(environment),
    )  # fmt: skip
    return made.stdout.strip()


@contextmanager
def started(contender: Contender, folder: Path) -> Iterator[psutil.Process | None]:
    if contender.start is None:
        yield None
        return
    process = subprocess.Popen(
        contender.start, cwd=folder, env=os.environ | dict(contender.environment),
        stdout=subprocess.DEVNULL, stderr=(folder / f"{contender.name}.log").open("w"), start_new_session=True,
    )  # fmt: skip
    os.sched_setaffinity(process.pid, {CORES[-1]})
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    total = 0.0
    for one in family(process):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += float(times.user) + float(times.system)
    return total


def rss_mb(process: psutil.Process) -> float:
    return float(sum(one.memory_info().rss for one in family(process))) / 2**20


async def measure(contender: Contender, folder: Path, options: argparse.Namespace) -> Figures:
    figures = Figures()
    began = time.perf_counter()
    with started(contender, folder) as process:
        ask = make_asks(contender.model)
        while not (await try_once(contender, ask)).latency_s:
            if time.perf_counter() - began > 90:
                raise SystemExit(f"{contender.name} does not answer: see its log")
        figures.start_s = time.perf_counter() - began
        figures.rss_mb = rss_mb(process) if process else 0.0
        loads = [(f"{lanes} in flight", ask, lanes) for lanes in (1, 16, 64)]
        loads += [("100k tokens", make_asks(contender.model, words=80_000, count=8), 4)]
        loads += [("stream", make_asks(contender.model, stream=True), 16)]
        for name, body, lanes in loads:
            await run_load(
                contender.port, contender.path, body, lanes=lanes, seconds=0.5, headers=contender.all_headers
            )
            before = cpu_s(process) if process else 0.0
            seen = await run_load(
                contender.port,
                contender.path,
                body,
                lanes=lanes,
                seconds=options.seconds,
                headers=contender.all_headers,
            )
            figures.seen[name] = seen
            spent = (cpu_s(process) if process else 0.0) - before
            figures.cpu_ms[name] = spent * 1e3 / max(len(seen.latency_s), 1)
        figures.rss_after_mb = rss_mb(process) if process else 0.0
    return figures


async def take_turns(before: Contender, now: Contender, folder: Path, options: argparse.Namespace) -> None:
    """Print the CPU of named requests of two versions, measured in turns."""
    with started(before, folder) as former, started(now, folder) as present:
        assert former is not None
        assert present is not None
        costs: dict[str, list[float]] = {}
        for contender in (before, now):
            while not (await try_once(contender, make_asks(contender.model))).latency_s:
                pass
        for stream in (False, True):
            ask = make_asks("w0", stream=stream)
            for turn in range(options.rounds + 1):
                for contender, process in ((before, former), (now, present)):
                    spent = cpu_s(process)
                    seen = await run_load(
                        contender.port, contender.path, ask, lanes=16, seconds=options.seconds,
                        headers=contender.all_headers,
                    )  # fmt: skip
                    spent = (cpu_s(process) - spent) * 1e3 / max(len(seen.latency_s), 1)
                    if turn:  # the first warms up
                        costs.setdefault(f"{'streamed' if stream else 'whole'}, {contender.name}", []).append(spent)
    print("| CPU ms per named request, 16 in flight | median | rounds |\n| --- | --- | --- |")
    for name, found in costs.items():
        print(f"| {name} | {median(found):.3f} | {', '.join(f'{each:.3f}' for each in found)} |")


async def try_once(contender: Contender, ask: list[bytes]) -> Seen:
    try:
        return await run_load(contender.port, contender.path, ask, lanes=1, seconds=0.0, headers=contender.all_headers)
    except OSError:
        await asyncio.sleep(0.02)
        return Seen()


COLUMNS = (
    "gateway", "start s", "RSS MB", "CPU ms per request, 1 in flight", "16", "64", "x nginx at 16", "100k tokens",
    "added p50 / p99 ms, 1 in flight", "16", "stream: CPU us per chunk", "x nginx", "added ms to the first token",
    "not answered",
)  # fmt: skip


def print_table(figures: Mapping[str, Figures]) -> None:
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for name, found in figures.items():
        print(f"| {' | '.join([name, *make_cells(found, figures)])} |", flush=True)


def make_cells(found: Figures, figures: Mapping[str, Figures]) -> list[str]:
    direct, nginx = figures["direct"], figures.get("nginx", Figures())
    added = [
        "/".join(f"{found.seen[load].quantile_ms(q) - direct.seen[load].quantile_ms(q):.2f}" for q in (0.5, 0.99))
        for load in ("1 in flight", "16 in flight")
    ]
    first_ms = (median(found.seen["stream"].first_s) - median(direct.seen["stream"].first_s)) * 1e3
    at16 = found.cpu_ms["16 in flight"] / nginx.cpu_ms.get("16 in flight", float("nan"))
    return [
        f"{found.start_s:.1f}", f"{found.rss_mb:.0f} / {found.rss_after_mb:.0f}",
        *(f"{found.cpu_ms[load]:.3f}" for load in ("1 in flight", "16 in flight", "64 in flight")),
        f"{at16:.1f}", f"{found.cpu_ms['100k tokens']:.2f}", *added,
        f"{per_chunk(found):.1f}", f"{per_chunk(found) / per_chunk(nginx):.2f}", f"{first_ms:.2f}",
        str(sum(seen.bad for seen in found.seen.values())),
    ]  # fmt: skip


def per_chunk(found: Figures) -> float:
    """Microseconds of CPU for each chunk of a stream."""
    stream = found.seen.get("stream", Seen())
    return found.cpu_ms.get("stream", float("nan")) * 1e3 * len(stream.latency_s) / max(stream.chunks, 1)


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else float("nan")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="of the upstream")
    parser.add_argument("--litellm")
    parser.add_argument("--portkey")
    parser.add_argument("--before", metavar="SRC")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    os.sched_setaffinity(0, set(CORES[:-1]) or set(CORES))
    with tempfile.TemporaryDirectory() as name:
        folder, upstream = Path(name), free_port()
        command = [sys.executable, str(HERE / "upstream.py"), str(upstream), "--delay-ms", str(options.delay_ms)]
        serving = await asyncio.create_subprocess_exec(*command)
        try:
            if options.before:
                base = f"http://127.0.0.1:{upstream}"
                before = make_ripieno("before", "w0", base, folder, options.before)
                await take_turns(before, make_ripieno("now", "w0", base, folder), folder, options)
                return
            figures = {}
            for contender in list_contenders(upstream, folder, options):
                figures[contender.name] = await measure(contender, folder, options)
                print(f"measured {contender.name}", file=sys.stderr, flush=True)
        finally:
            serving.terminate()
        print_table(figures)


if __name__ == "__main__":
    uvloop.run(main())
