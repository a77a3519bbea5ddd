"""Runs an ASGI app on a socket with uvicorn: expires connections that are due, and drains."""

import asyncio
import socket
import ssl

from uvicorn.config import Config
from uvicorn.server import ServerState

from ripieno.gateway.asgi import HttpApp
from ripieno.gateway.strict import StrictProtocol

BACKLOG = 4096
SWEEP_S = 1.0
"""Seconds between two looks for connections that are due."""
HANDSHAKE_S = 10.0


class HttpServer:
    """Accepts connections, and passes their requests to one app.

    Args:
        app: answers requests, and holds the limits.
    """

    def __init__(self, app: HttpApp) -> None:
        self.app = app
        self._config = Config(
            app,
            lifespan="off",
            interface="asgi3",
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=int(app.limits.idle_s) or 1,
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, listener: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a bound socket, with TLS if there is a context."""
        loop = asyncio.get_running_loop()
        timeout = HANDSHAKE_S if tls is not None else None
        self._server = await loop.create_server(
            self._make_protocol, sock=listener, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=timeout
        )
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    async def drain(self, *, within_s: float) -> None:
        """Accept no further request, finish the running ones, then close every connection."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(tuple(self._state.tasks), timeout=within_s)
        for connection in tuple(self._state.connections):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.sleep(0)  # transports close in the next iteration of the loop
        if self._state.tasks:
            await asyncio.wait(tuple(self._state.tasks), timeout=1.0)  # they were cancelled with their clients

    def _make_protocol(self) -> asyncio.Protocol:
        return StrictProtocol(self.app, self._config, self._state)

    def _sweep(self) -> None:
        """Expire the connections that are due, with one timer for all."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._state.connections):
            assert isinstance(connection, StrictProtocol)
            connection.expire(now)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)
