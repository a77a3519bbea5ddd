"""Opens the gateway of an app: its keys, gate and background loops, as an ASGI app."""

import ipaddress
import secrets
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from ripieno.app import FOLLOW_S, Installation
from ripieno.app.remembering import beat_memory, extract_new_facts
from ripieno.domain import WorkerId
from ripieno.gateway.asgi import HttpApp
from ripieno.gateway.gate import Gate
from ripieno.gateway.http import Limits
from ripieno.gateway.keyring import Keyring
from ripieno.gateway.server import Gateway
from ripieno.gateway.shared import Counts, RedisCounts
from ripieno.gateway.spans import Spans
from ripieno.gateway.visitors import Visitors
from ripieno.loops import Loop, Loops
from ripieno.memory.health import BEAT_S
from ripieno.providers.caller import probe_resting


@dataclass(frozen=True, slots=True)
class Opened:
    """An open gateway, and the ASGI app in front of it."""

    gateway: Gateway
    app: HttpApp


@asynccontextmanager
async def open_gateway(app: Installation, *, is_local: bool, admin_key: str | None = None) -> AsyncIterator[Opened]:
    """Open the gateway while the block runs.

    Args:
        app: the opened app.
        is_local: whether only this machine can reach the gateway.
        admin_key: may do everything if no master key is set (see `load_admin_key`); without both there is no admin.
    """
    settings = app.runtime.settings.gateway
    master = settings.api_key.get_secret_value() if settings.api_key is not None else None
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
    _start_loops(loops, app, keyring, shared)
    try:
        yield Opened(gateway, HttpApp(gateway, gateway.refuse_malformed, limits=limits, headers=gate.headers))
    finally:
        gateway.is_draining = True
        await loops.close()
        await gateway.close()
        await keyring.close()
        await shared.close()
        if spans is not None:
            await to_thread(spans.close)


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
    loops.start(often("probing"), lambda: probe_resting(app.runtime.caller, app.runtime.pool))
    loops.start(often("replicas"), lambda: _exchange_resting(app, shared))
    loops.start(often("runs"), app.runs.sweep, is_due=True)
    loops.start(seldom("memory"), lambda: beat_memory(app))
    loops.start(seldom("extraction"), lambda: extract_new_facts(app))
