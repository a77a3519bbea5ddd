"""The gateway as an ASGI app for any server, or to mount in another app: `uvicorn ripieno.asgi:app`.

The settings come from the file that RIPIENO_CONFIG names, else `ripieno.toml` in the working folder; and variables.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.errors import ConfigError, RipienoError
from ripieno.gateway.admin_key import LEAST, load_admin_key
from ripieno.gateway.asgi import HttpApp, Receive, Scope, Send
from ripieno.gateway.gate import SAFE_HEADERS
from ripieno.gateway.http import Response
from ripieno.gateway.opening import Opened, is_loopback, open_gateway

__all__ = ["App", "app"]

NO_KEY = (
    b'{"error": {"message": "the gateway has no key, and so serves only this machine; '
    b'set RIPIENO_GATEWAY__API_KEY to a long random text", "type": "permission_error", "code": "no_key"}}'
)
NOT_OPEN = (
    b'{"error": {"message": "the gateway is not open: its lifespan did not start", "type": "server_error", '
    b'"code": "not_open"}}'
)


class App:
    """The gateway, which opens and closes with the lifespan of its server.

    A server whose lifespan does not reach a mounted app opens it itself: `async with app.opened(): ...`.

    Args:
        config: the settings file. Default: RIPIENO_CONFIG, or `ripieno.toml` in the working folder.
    """

    def __init__(self, config: Path | None = None) -> None:
        self._config = config
        self._open: Opened | None = None
        self._is_guarded = False
        """Whether a master key guards every route, so that other machines may reach the gateway."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI server."""
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http":
                await self._serve(scope, receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            case kind:
                raise ValueError(f"the gateway serves http, not {kind!r}")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["App"]:
        """Open the gateway while the block runs.

        Raises:
            RipienoError: the settings are wrong, or something that they name is not available.
        """
        if self._open is not None:
            raise ConfigError("the gateway is open already", hint="open it once for each process")
        named = os.environ.get("RIPIENO_CONFIG")
        loaded = load_settings(self._config or (Path(named) if named else None))
        settings = loaded.settings
        key = settings.gateway.api_key
        if key is not None and len(key.get_secret_value()) < LEAST:
            raise ConfigError(
                f"the key has less than {LEAST} characters, and any ASGI server may be open to other machines",
                key="gateway.api_key",
                hint="set RIPIENO_GATEWAY__API_KEY to a long random text",
            )
        self._is_guarded = key is not None
        admin = load_admin_key(settings.home).secret if key is None else None
        async with (
            Installation(loaded) as installation,
            open_gateway(installation, is_local=not self._is_guarded, admin_key=admin) as opened,
        ):
            self._open = opened
            try:
                yield self
            finally:
                self._open = None

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open at the start of the server, and close at its end."""
        async with AsyncExitStack() as stack:
            await receive()
            try:
                await stack.enter_async_context(self.opened())
            except RipienoError as error:
                said = error.message if error.hint is None else f"{error.message}; {error.hint}"
                await send({"type": "lifespan.startup.failed", "message": said})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        opened = self._open
        if opened is None:
            closed = HttpApp(_answer_closed, _refuse_closed, headers=SAFE_HEADERS)
            await closed.refuse(Response(NOT_OPEN, status=503), receive, send)
        elif self._is_guarded or _is_here(scope):
            await opened.app(scope, receive, send)
        else:
            await opened.app.refuse(Response(NO_KEY, status=403), receive, send)


async def _answer_closed(request: object) -> Response:
    return Response(NOT_OPEN, status=503)


def _refuse_closed(status: int, message: str, headers: Mapping[str, str]) -> Response:
    return Response(NOT_OPEN, status=503)


def _is_here(scope: Scope) -> bool:
    """Return whether a request came over an address of this machine only, or over a unix socket."""
    server = cast("tuple[str, int | None] | None", scope.get("server"))
    return server is not None and (server[1] is None or is_loopback(server[0]))


app = App()
