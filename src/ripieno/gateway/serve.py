"""Run the gateway on a socket."""

import asyncio
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import uvicorn

from ripieno.app import App
from ripieno.config import GatewaySettings
from ripieno.errors import ConfigError
from ripieno.gateway.server import make_gateway


def bind_socket(settings: GatewaySettings) -> socket.socket:
    """Take the address.

    Raises:
        ConfigError: it is in use, not this machine's, or open to others without a key.
    """
    if not _is_loopback(settings.host) and settings.api_key is None:
        raise ConfigError(
            f"gateway.host {settings.host!r} is open to other machines, and no key is set",
            key="gateway.api_key",
            hint="set RIPIENO_GATEWAY__API_KEY, or listen on 127.0.0.1",
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error}",
            key="gateway.port",
            hint="choose another with --port, or --port 0 for a free one",
        ) from error
    return listener


@asynccontextmanager
async def running(app: App, listener: socket.socket) -> AsyncIterator[str]:
    """Serve while the block runs; gives the address."""
    server = _make_server(app)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        following = group.create_task(app.follow())
        try:
            yield address_of(listener)
        finally:
            server.should_exit = True
            following.cancel()


async def serve_forever(app: App, listener: socket.socket, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are finished first."""
    server = _make_server(app)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, partial(setattr, server, "should_exit", True))
    on_ready(address_of(listener))
    following = asyncio.create_task(app.follow())
    try:
        await server.serve(sockets=[listener])
    finally:
        following.cancel()


def address_of(listener: socket.socket) -> str:
    """Base URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller: uvicorn's own handling would end the process before the app is closed."""
        yield


def _make_server(app: App) -> uvicorn.Server:
    config = uvicorn.Config(
        make_gateway(app), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=30
    )
    return _Server(config)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
