"""Two replicas behind nginx, one ledger in PostgreSQL, shared counts in Redis; one replica is killed under load.

    python scripts/two_replicas.py [--seconds 10]

Takes PostgreSQL, Redis and nginx from Debian's packages (`apt-get install postgresql redis-server nginx-light`), starts
them in a folder of its own on loopback, and ends them again. Prints what was asked, answered, failed and recorded.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ripieno.gateway.asgi import HttpApp
from ripieno.gateway.http import Request, Response
from ripieno.gateway.listening import HttpServer
from ripieno.ledger import Ledger
from ripieno.providers.http import HttpClient

ASK = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}).encode()
ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1},
    }
).encode()


@dataclass(slots=True)
class Tally:
    """Counts the answers of a load test."""

    statuses: dict[int, int] = field(default_factory=dict)
    lost: int = 0
    decisions: list[str] = field(default_factory=list)

    def note(self, status: int, decision: str | None) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if decision is not None:
            self.decisions.append(decision)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def demonstrate(folder: Path, *, ledger_url: str, redis_url: str, nginx: str, seconds: float) -> Tally:
    """Serve with two replicas, load them through nginx, kill one half-way; the ledger is checked by the caller."""
    listening, upstream = await start_upstream()
    ports = [free_port(), free_port()]
    replicas = [start_replica(folder, port, upstream, ledger_url, redis_url) for port in ports]
    front = free_port()
    balancer = start_nginx(folder, nginx, front, ports)
    tally = Tally()
    try:
        for port in (*ports, front):
            await wait_for(port)
        lanes = [asyncio.create_task(load(front, tally, time.monotonic() + seconds)) for _ in range(8)]
        await asyncio.sleep(seconds / 2)
        replicas[0].kill()
        await asyncio.gather(*lanes)
    finally:
        await listening.drain(within_s=1.0)
        for process in (balancer, *replicas):
            process.terminate()
            process.wait(30)
    return tally


async def start_upstream() -> tuple[HttpServer, int]:
    async def answer(request: Request) -> Response:
        await asyncio.sleep(0.01)
        return Response(ANSWER)

    server = HttpServer(HttpApp(answer, lambda status, said, _: Response(said.encode(), status=status)))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    await server.start(listener)
    return server, listener.getsockname()[1]


def start_replica(folder: Path, port: int, upstream: int, ledger_url: str, redis_url: str) -> "subprocess.Popen[bytes]":
    settings = folder / f"{port}.toml"
    settings.write_text(
        f'home = "{folder}/{port}"\n[providers.up]\nkind = "openai"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n'
        '[workers.w]\nprovider = "up"\nusd_per_call = 1e-3\nmax_concurrency = 64\n'
    )
    environment = os.environ | {"RIPIENO_LEDGER__URL": ledger_url, "RIPIENO_GATEWAY__SHARED_URL": redis_url}
    command = [sys.executable, "-m", "ripieno.cli", "--config", str(settings), "serve", "--port", str(port)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)


def start_nginx(folder: Path, nginx: str, front: int, ports: list[int]) -> "subprocess.Popen[bytes]":
    temporary = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    servers = " ".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=5s;" for port in ports)
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; error_log {folder}/nginx.err; pid {folder}/nginx.pid;\n"
        f"events {{ worker_connections 512; }}\nhttp {{ access_log off; {temporary}\n"
        f"upstream replicas {{ {servers} keepalive 32; }}\n"
        f"server {{ listen 127.0.0.1:{front}; location / {{ proxy_pass http://replicas; proxy_http_version 1.1;\n"
        'proxy_set_header Host $http_host; proxy_set_header Connection "";\n'
        "proxy_buffering off; proxy_read_timeout 300s;\n"
        "proxy_next_upstream error timeout http_502 http_503 non_idempotent; } } }\n"
    )
    return subprocess.Popen([nginx, "-c", f"{folder}/nginx.conf"], stderr=subprocess.DEVNULL)


async def wait_for(port: int) -> None:
    client = HttpClient(f"http://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    if (await client.fetch("GET", "/readyz")).status == 200:
                        return
                except OSError:
                    await asyncio.sleep(0.05)
    finally:
        await client.close()


async def load(port: int, tally: Tally, ends: float) -> None:
    client = HttpClient(f"http://127.0.0.1:{port}", headers={"content-type": "application/json"})
    while time.monotonic() < ends:
        try:
            reply = await client.fetch("POST", "/v1/chat/completions", ASK)
        except OSError:
            tally.lost += 1
            continue
        tally.note(reply.status, reply.headers.get("x-ripieno-decision"))
    await client.close()


@contextmanager
def debian_servers(folder: Path) -> Iterator[tuple[str, str]]:
    """PostgreSQL and Redis from Debian's packages; gives their addresses."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    redis = shutil.which("redis-server")
    if not binaries or redis is None:
        raise SystemExit("apt-get install postgresql redis-server nginx-light")
    # PostgreSQL refuses to run as root: then the user of Debian's package runs it.
    prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    data = Path(tempfile.mkdtemp(prefix="ripieno-pg-"))
    if prefix:
        shutil.chown(data, "postgres")
    port, redis_port = free_port(), free_port()
    run([*prefix, str(binaries[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", "ripieno"])
    serving = [str(binaries[-1] / "postgres"), "-D", str(data), "-p", str(port), "-k", str(data), "-h", "127.0.0.1"]
    quiet = subprocess.DEVNULL
    postgres = subprocess.Popen([*prefix, *serving], cwd=data, stdout=quiet, stderr=quiet)
    counting = subprocess.Popen(
        [redis, "--port", str(redis_port), "--save", "", "--dir", str(folder)], stdout=quiet, stderr=quiet
    )
    try:
        wait_for_port(port)
        wait_for_port(redis_port)
        yield f"postgresql://ripieno@127.0.0.1:{port}/postgres", f"redis://127.0.0.1:{redis_port}/0"
    finally:
        run([*prefix, str(binaries[-1] / "pg_ctl"), "stop", "-D", str(data), "-m", "fast"])
        counting.terminate()
        postgres.wait(30)
        counting.wait(30)
        shutil.rmtree(data, ignore_errors=True)


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise SystemExit(f"{command[-1]}: {done.stderr}")


def wait_for_port(port: int) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        raise SystemExit("apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as name, debian_servers(Path(name)) as (ledger_url, redis_url):
        shown = re.sub(r":\d+", "", f"{ledger_url}, {redis_url}")
        print(f"two replicas behind nginx; {shown}; one is killed after {options.seconds / 2:.0f} s")
        folder = Path(name)
        made = demonstrate(folder, ledger_url=ledger_url, redis_url=redis_url, nginx=nginx, seconds=options.seconds)
        tally = asyncio.run(made)
        with Ledger(ledger_url) as ledger:
            found = ledger.verify()
            recorded = {stored.entry.decision.id for stored in ledger.read(kinds=("decided",))}  # type: ignore[union-attr]  # decided
            missing = set(tally.decisions) - recorded
        print(f"answers by status: {dict(sorted(tally.statuses.items()))}; connections lost: {tally.lost}")
        print(f"ledger: {found.entries} entries in one chain; answers without their decision in it: {len(missing)}")


if __name__ == "__main__":
    main()
