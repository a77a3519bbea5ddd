"""Run the gateway on a socket."""

import asyncio
import gc
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from ripieno.app import Installation
from ripieno.config import GatewaySettings
from ripieno.errors import ConfigError
from ripieno.gateway.admin_key import LEAST
from ripieno.gateway.listening import BACKLOG, HttpServer
from ripieno.gateway.opening import is_loopback, open_gateway
from ripieno.gateway.supervisor import ENDS

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
        admin_key: see `open_gateway`.
    """
    settings = app.runtime.settings.gateway
    tls = load_tls(settings)
    is_local = is_loopback(listener.getsockname()[0])
    async with open_gateway(app, is_local=is_local, admin_key=admin_key) as opened:
        server = HttpServer(opened.app)
        await server.start(listener, tls=tls)
        try:
            yield address_of(listener, is_secure=tls is not None)
        finally:
            opened.gateway.is_draining = True
            await server.drain(within_s=settings.drain_s)


def load_tls(settings: GatewaySettings) -> ssl.SSLContext | None:
    """Load the certificate of the settings; None without one.

    Raises:
        ConfigError: a file is missing, or is not what it should be.
    """
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        raise ConfigError(
            f"the certificate {settings.tls_cert} or its key cannot be used: {error.strerror or error}",
            key="gateway.tls_cert",
            hint="tls_cert and tls_key name files in PEM form that belong together",
        ) from error
    return context


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
        admin_key: see `open_gateway`.
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
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), PARENT_S)


def address_of(listener: socket.socket, *, is_secure: bool = False) -> str:
    """Return the base URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def raise_file_limit() -> None:
    """Raise the limit of open files, and so of connections, to the most that the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
