"""uvicorn's HTTP/1.1 protocol, made strict: what it takes of bytes and time is limited, and no odd shape passes.

uvicorn and httptools parse and write. This module limits heads, idle and stalled connections and their number, keeps
the order of answers and refusals, and answers an upgrade that is not supported instead of leaving it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ripieno.gateway.asgi import AUTHORITY, LINGER_S

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from ripieno.gateway.asgi import HttpApp

LONGEST_HEAD = 64 * 1024
MOST_HEADERS = 256
_OFFERED = (b"upgrade", b"http2-settings")
"""Headers of an upgrade, and their names in the header `connection`."""


class StrictProtocol(HttpToolsProtocol):
    """One client connection; its requests are answered in order.

    Args:
        app: answers requests, and holds the limits.
        config: of uvicorn.
        state: the connections and tasks of the server.
    """

    def __init__(self, app: HttpApp, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.parser = httptools.HttpRequestParser(self)  # without the leniencies that uvicorn sets
        self.due: float | None = None
        """When the connection expires."""
        self._http = app
        self._fault: tuple[int, str] | None = None
        """Status and message of what is wrong with the bytes."""
        self._is_deaf = False
        """Whether further bytes are dropped."""
        self._plain_head = b""
        """Head of a request that offers an upgrade, without the offer."""
        self._stalled_at: float | None = None
        """When it was noticed that the client reads nothing."""
        self._is_in_head = False
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; further ones may wait behind it."""
        self._head_bytes = 0
        self._head_fields = 0

    # called by the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Accept a connection, unless there are too many."""
        super().connection_made(transport)
        self.due = self.loop.time() + self._http.limits.idle_s
        if len(self.connections) > self._http.limits.connections:
            self._fault = 503, "too many connections; try again soon"
            self._refuse()

    def data_received(self, data: bytes) -> None:
        """Read bytes."""
        if self._is_deaf:
            return
        if self.cycle is None or self.cycle.response_complete:
            due = self.loop.time() + self._http.limits.request_s
            self.due = due if self.due is None else min(due, self.due)
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._plain_head + data[upgrade.args[0] :]
                self._plain_head = b""
                self.parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            else:
                return

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the running request that its client left; uvicorn tells only the last one."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    # called by the parser

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = self._head_fields = 0

    def on_url(self, url: bytes) -> None:
        """Add a part of the address."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add one header. Trailers are counted, and do not become headers."""
        self._head_fields += 1
        self._count(len(name) + len(value))
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the address is odd."""
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._fail(505, "the gateway speaks HTTP/1.1 and HTTP/1.0")
        if self.parser.should_upgrade():
            method = self.parser.get_method()
            if method == b"CONNECT":
                self._fail(405, "the gateway is no proxy")
            begin = b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())
            self._plain_head = begin + _write_without_offer(self.headers)
            return
        authority = None
        if not self.url.startswith(b"/") and not (authority := _read_authority(self.url)):
            self._fail(400, "the address is malformed")
        super().on_headers_complete()
        if authority is not None:
            self.scope["extensions"] = {AUTHORITY: {"host": authority}}
        self._is_in_head = False
        self.due = None

    def on_message_complete(self) -> None:
        """End a request, unless its body is still to be read."""
        if not self._plain_head:
            super().on_message_complete()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > LONGEST_HEAD:
            self._fail(431, f"the headers are over {LONGEST_HEAD} bytes")
        if self._head_fields > MOST_HEADERS:
            self._fail(431, f"the request has more than {MOST_HEADERS} headers")

    def _fail(self, status: int, message: str) -> None:
        """Stop the parser, which then calls `send_400_response`."""
        self._fault = status, message
        raise ValueError(message)

    # called by uvicorn

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no request, after the answers to earlier requests."""
        self._fault = self._fault or (400, "the bytes are not an HTTP request")
        self._is_deaf = True
        self.due = self.loop.time() + self._http.limits.request_s
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_complete:
            cycle.disconnected = True  # its body is what is malformed: nothing waits for the rest
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
            elif not self.pipeline:
                self._refuse()
        elif cycle is None or cycle.response_complete:
            self._refuse()

    def on_response_complete(self) -> None:
        """Start the next request, or refuse what followed this one."""
        super().on_response_complete()
        if self._fault is not None and not self.pipeline and self.cycle.response_complete:
            self._refuse()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self) -> None:
        """Send a refusal, drop further bytes for a while, and end the connection."""
        if self.transport.is_closing():
            return
        assert self._fault is not None
        self._is_deaf = True
        self._unset_keepalive_if_required()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.headers or ()}
        answer = self._http.refusal(*self._fault, headers)
        lines = [b"HTTP/1.1 %d \r\n" % answer.status]
        lines += [b"%b: %b\r\n" % pair for pair in self._http.make_headers(answer)]
        lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(answer.body))
        self.transport.write(b"".join(lines) + answer.body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.due = self.loop.time() + LINGER_S

    # called by the server

    def expire(self, now: float) -> None:
        """End a connection whose client reads nothing, whose head is incomplete, or that is idle for too long."""
        if self.flow.write_paused:
            self._stalled_at = self._stalled_at or now
            if now - self._stalled_at >= self._http.limits.stall_s:
                self.transport.abort()
            return
        self._stalled_at = None
        if self.due is None or now < self.due:
            return
        self.due = None
        if self._is_in_head and not self._is_deaf and (self.cycle is None or self.cycle.response_complete):
            self._fault = 408, "the request did not arrive in time"
            self._refuse()
        else:
            self.transport.abort()


def _write_without_offer(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Write headers again, without the upgrade that they offer, so that the body is read as HTTP/1.1."""
    lines = []
    for name, value in headers:
        if name == b"connection":
            kept = [each.strip() for each in value.split(b",") if each.strip().lower() not in _OFFERED]
            lines += [b"connection: %b\r\n" % b", ".join(kept)] if kept else []
        elif name not in _OFFERED:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines) + b"\r\n"


def _read_authority(target: bytes) -> str:
    """Return host and port of a target that is a whole URL; empty if it is malformed."""
    url = httptools.parse_url(target)
    if url.userinfo or not url.host or url.schema not in (b"http", b"https") or not url.path:
        return ""
    name = url.host.decode("latin-1")
    name = f"[{name}]" if ":" in name else name
    return name if url.port is None else f"{name}:{url.port}"
