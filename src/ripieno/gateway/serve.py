"""Run the gateway on a socket."""

import asyncio
import gc
import ipaddress
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from ripieno.app import FOLLOW_S, Installation
from ripieno.app.remembering import beat_memory, extract_new_facts
from ripieno.config import GatewaySettings
from ripieno.domain import WorkerId
from ripieno.errors import ConfigError
from ripieno.gateway.admin_key import LEAST
from ripieno.gateway.gate import Gate
from ripieno.gateway.http import Limits
from ripieno.gateway.http_server import HttpServer
from ripieno.gateway.keyring import Keyring
from ripieno.gateway.server import Gateway
from ripieno.gateway.shared import Counts, RedisCounts
from ripieno.gateway.spans import Spans
from ripieno.gateway.supervisor import ENDS
from ripieno.gateway.visitors import Visitors
from ripieno.loops import Loop, Loops
from ripieno.memory.health import BEAT_S

BACKLOG = 4096
PARENT_S = 1.0
"""Seconds between two checks that the parent process still runs."""
RELOAD_CHECK_INTERVAL_S = 0.05
"""Seconds between two checks whether a settings file changed, however many tasks arrive."""
GARBAGE = (20_000, 20, 20)
"""Thresholds of garbage collection: a request makes some hundred objects, and hardly any cycle."""
SWITCH_S = 0.0005
"""Thread switch interval in seconds. It bounds how long the event loop can delay a ledger commit."""


def bind_socket(settings: GatewaySettings) -> socket.socket:
    """Bind the address of the settings.

    Raises:
        ConfigError: it is in use, not this machine's, or open to others without a key.
    """
    if not is_loopback(settings.host):
        _require_key(settings)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error}",
            key="gateway.port",
            hint="choose another with --port, or --port 0 for a free one",
        ) from error
    listener.setblocking(False)
    return listener


def _require_key(settings: GatewaySettings) -> None:
    """Require a key that cannot be guessed."""
    key = settings.api_key
    if key is None or len(key.get_secret_value()) < LEAST:
        fault = "no key is set" if key is None else f"the key has less than {LEAST} characters"
        raise ConfigError(
            f"gateway.host {settings.host!r} is open to other machines, and {fault}",
            key="gateway.api_key",
            hint="set RIPIENO_GATEWAY__API_KEY to a long random text, or listen on 127.0.0.1",
        )


@asynccontextmanager
async def running(app: Installation, listener: socket.socket, *, admin_key: str | None = None) -> AsyncIterator[str]:
    """Serve while the block runs, then finish the running requests; yields the address.

    Args:
        app: the opened app.
        listener: the bound socket.
        admin_key: may do everything if no master key is set (see `load_admin_key`); without both there is no admin.
    """
    settings = app.runtime.settings.gateway
    master = settings.api_key.get_secret_value() if settings.api_key is not None else None
    is_local = is_loopback(listener.getsockname()[0])
    is_open = not settings.needs_key and master is None and is_local
    shared = RedisCounts(settings.shared_url.get_secret_value()) if settings.shared_url is not None else Counts()
    key = master or admin_key or secrets.token_urlsafe()
    is_lenient = app.runtime.settings.ledger.on_fault == "spool"
    keyring = Keyring(
        app.ledger.keys, admin=key, is_open=is_open, clock=app.clock, shared=shared, is_lenient=is_lenient
    )
    await keyring.refresh()
    spans = Spans(settings.traces_url) if settings.traces_url is not None else None
    viewer = settings.viewer_key.get_secret_value() if settings.viewer_key is not None else None
    visitors = Visitors(key=key, viewer_key=viewer, is_open=is_open, clock=app.clock)
    gate = Gate(hosts=settings.allowed_hosts, origins=settings.allowed_origins, is_loopback=is_local)
    loops = Loops(app.ledger.loops)
    gateway = Gateway(app, gate=gate, keyring=keyring, visitors=visitors, spans=spans, loops=loops)
    limits = Limits(body_bytes=settings.body_bytes, memory_bytes=settings.memory_bytes)
    http = HttpServer(gateway, gateway.refuse_malformed, limits=limits, headers=gate.headers)
    server = await asyncio.get_running_loop().create_server(http.make_protocol, sock=listener, backlog=BACKLOG)
    _start_loops(loops, app, keyring, shared)
    try:
        yield address_of(listener)
    finally:
        gateway.is_draining = True
        server.close()
        await http.drain(within_s=settings.drain_s)
        await loops.close()
        await gateway.close()
        await keyring.close()
        await shared.close()
        if spans is not None:
            await asyncio.to_thread(spans.close)


async def serve_forever(
    app: Installation,
    listener: socket.socket,
    *,
    on_ready: Callable[[str], None],
    on_stop: Callable[[], None] = lambda: None,
    parent: int | None = None,
    admin_key: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. Running requests finish first, unless a second signal arrives.

    Args:
        app: the opened app.
        listener: the bound socket.
        on_ready: called with the address.
        on_stop: called at the first signal. From then on a second signal ends the process at once. A process with a
            parent always finishes its requests: it gets each signal twice, from the terminal and from the parent,
            which kills it at the second signal.
        parent: id of the parent process; this process ends with it.
        admin_key: see `running`.
    """
    raise_file_limit()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # objects from the start are never garbage: the collector skips them
    gc.set_threshold(*GARBAGE)
    app.reload_check_interval_s = RELOAD_CHECK_INTERVAL_S
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopped.is_set():
            return
        stopped.set()
        if parent is None:
            for number in ENDS:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)  # the system ends the process, however busy the loop is
            on_stop()

    for number in ENDS:
        loop.add_signal_handler(number, stop)
    async with running(app, listener, admin_key=admin_key) as address:
        on_ready(address)
        if parent is None:
            await stopped.wait()
        while parent is not None and os.getppid() == parent and not stopped.is_set():
            await asyncio.wait({asyncio.ensure_future(stopped.wait())}, timeout=PARENT_S)


def address_of(listener: socket.socket) -> str:
    """Return the base URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def raise_file_limit() -> None:
    """Raise the limit of open files, and so of connections, to the most that the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _exchange_resting(app: Installation, shared: Counts) -> None:
    """Exchange with other replicas which workers rest."""
    await shared.share_resting({str(worker): left for worker, left in app.health.resting().items()})
    for worker, left_s in (await shared.resting()).items():
        app.health.note_resting(WorkerId(worker), left_s)


def _start_loops(loops: Loops, app: Installation, keyring: Keyring, shared: Counts) -> None:
    """Start the background loops. Each has one job, so that its name says what fails."""
    often = partial(Loop, every_s=FOLLOW_S, clock=app.clock)
    seldom = partial(Loop, every_s=BEAT_S, clock=app.clock)
    loops.start(app.learning, app.refresh)
    loops.start(often("keys"), keyring.refresh)
    loops.start(often("probing"), lambda: app.runtime.caller.probe_resting(app.runtime.pool))
    loops.start(often("replicas"), lambda: _exchange_resting(app, shared))
    loops.start(often("runs"), app.runs.sweep, is_due=True)
    loops.start(seldom("memory"), lambda: beat_memory(app))
    loops.start(seldom("extraction"), lambda: extract_new_facts(app))
