"""The HTTP server of the hot path: requests in, whole or streamed responses out.

httptools parses; what is here bounds memory and time, cancels the work of clients that have left, and drains.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote

import httptools

log = logging.getLogger(__name__)

LONGEST_BODY = 32 * 1024 * 1024
LONGEST_HEAD = 64 * 1024
MOST_QUEUED = 16
"""Requests that one connection may send ahead."""
LINGER_S = 3.0
SWEEP_S = 1.0
SINGLE = frozenset(("host", "origin", "content-type", "content-length", "authorization", "x-api-key", "sec-fetch-site"))
"""Headers that a request may carry once: where one reader takes the first and another the last, it is smuggling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server takes at once."""

    body_bytes: int = LONGEST_BODY
    memory_bytes: int = 256 * 1024 * 1024
    """Of all bodies that are being read or worked on."""
    request_s: float = 30.0
    """For a whole request to come in, from its first byte."""
    idle_s: float = 75.0
    """A connection without a request is closed after that."""
    stall_s: float = 60.0
    """A client that does not read for so long is left."""


@dataclass(slots=True)
class Request:
    """One whole request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in lower case; of repeated ones the last."""
    body: bytes
    keeps_alive: bool = True
    """Whether the client may send another on the same connection."""
    authority: str = ""
    """Host and port of a request whose target is a whole URL, as a proxy is sent; empty for a plain path."""
    client: str = ""
    """The IP address that the connection comes from."""


@dataclass(slots=True)
class Response:
    """A whole response."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(slots=True)
class Stream:
    """A response part by part; closing `parts` early ends the work behind it."""

    parts: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream; charset=utf-8"


Handler = Callable[[Request], Awaitable[Response | Stream]]
Refusal = Callable[[int, str], Response]
"""Makes the response to what never reaches the handler, of a status and what is wrong."""


class HttpServer:
    """Accepts connections and hands their requests to one handler.

    Args:
        handler: answers; whatever it raises ends the connection, so it should raise nothing.
        refusal: answers what is no request.
        limits: bounds.
        headers: what every response carries.
    """

    def __init__(
        self,
        handler: Handler,
        refusal: Refusal,
        *,
        limits: Limits | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.handler = handler
        self.refusal = refusal
        self.limits = limits or Limits()
        self.base = "".join(f"{name}: {_clean(value)}\r\n" for name, value in (headers or {}).items())
        """The head lines of every response."""
        self.connections: set[_Connection] = set()
        self.memory = 0
        """Bytes of bodies held now."""
        self.is_draining = False
        self._sweeper: asyncio.TimerHandle | None = None

    def make_protocol(self) -> asyncio.Protocol:
        """The protocol of one new connection."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return _Connection(self)

    async def drain(self, *, within_s: float) -> None:
        """Take no further request, finish what is under way, then close every connection."""
        self.is_draining = True
        loop = asyncio.get_running_loop()
        ends = loop.time() + within_s
        for connection in tuple(self.connections):
            connection.close_if_idle()
        working = [c.task for c in self.connections if c.task is not None]
        if working:
            await asyncio.wait(working, timeout=max(ends - loop.time(), 0.0))
        for connection in tuple(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.sleep(0)  # transports close at the loop's next turn

    def _sweep(self) -> None:
        """One timer for all connections: each has only a moment at which it is due."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self.connections):
            if connection.due is not None and connection.due <= now:
                connection.expire()
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)


class _Connection(asyncio.Protocol):
    """One client connection; its requests are answered one after the other."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self.task: asyncio.Task[None] | None = None
        self.due: float | None = None
        self._queue: deque[Request] = deque()
        self._url = b""
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._is_reading = False
        """Whether a request has begun to come in."""
        self._is_refused = False
        self._refusal: tuple[int, str] | None = None
        """Status and reason of a refusal that waits for the answers before it."""
        self._client = ""
        self._is_gone = False
        self._keeps_alive = True
        self._can_write = asyncio.Event()
        self._can_write.set()

    # from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._server.connections.add(self)
        self.due = self._loop.time() + self._server.limits.idle_s

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone = True
        self._server.connections.discard(self)
        self._forget_body()
        for request in self._queue:
            self._server.memory -= len(request.body)
        self._queue.clear()
        self._can_write.set()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if not self._is_reading:
            self._is_reading = True
            self.due = self._loop.time() + self._server.limits.request_s
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # not taken up: the request is answered as it stands, and the connection closed
        except httptools.HttpParserError:
            if not self._is_refused:
                self._refuse(400, "what came is no HTTP request")

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._can_write.clear()
        self.due = self._loop.time() + self._server.limits.stall_s

    def resume_writing(self) -> None:
        self._can_write.set()
        self.due = None

    # from the parser

    def on_message_begin(self) -> None:
        self._url, self._headers, self._parts, self._size, self._head_size = b"", {}, [], 0, 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        if key in self._headers and key in SINGLE:
            self._refuse(400, f"the header {key!r} stands more than once")
        self._headers[key] = value.decode("latin-1")
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        if self._is_refused:
            return
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._server.limits.body_bytes:
            self._refuse(413, f"the body is over {self._server.limits.body_bytes} bytes")
        elif self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._is_refused:
            return
        self._parts.append(body)
        self._size += len(body)
        self._server.memory += len(body)
        if self._size > self._server.limits.body_bytes:
            self._refuse(413, f"the body is over {self._server.limits.body_bytes} bytes")
        elif self._server.memory > self._server.limits.memory_bytes:
            self._refuse(503, "too much is being worked on; try again soon")

    def on_message_complete(self) -> None:
        if self._is_refused:
            return
        self._is_reading = False
        try:
            url = httptools.parse_url(self._url)
        except httptools.HttpParserInvalidURLError:
            self._refuse(400, "the address is not one")
            return
        authority = "" if self._url.startswith(b"/") else _read_authority(url.host, url.port)
        if url.userinfo or not (authority or self._url.startswith(b"/")):
            self._refuse(400, "the address is not one")
            return
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=unquote((url.path or b"/").decode("latin-1")),
            query=(url.query or b"").decode("latin-1"),
            headers=self._headers,
            body=body,
            keeps_alive=self._parser.should_keep_alive() and not self._parser.should_upgrade(),
            authority=authority,
            client=self._client,
        )
        self._parts, self._size = [], 0
        self.due = None
        if self.task is None:
            self.task = self._loop.create_task(self._work(request))
        else:
            self._queue.append(request)
            if len(self._queue) >= MOST_QUEUED:
                self._transport.pause_reading()

    # answers

    async def _work(self, request: Request) -> None:
        try:
            while True:
                self._keeps_alive = request.keeps_alive
                try:
                    answer = await self._server.handler(request)
                    if isinstance(answer, Stream):
                        await self._send_stream(answer)
                    else:
                        self._send(answer, has_body=request.method != "HEAD")
                finally:
                    self._server.memory -= len(request.body)
                if self._is_gone:
                    return
                if not self._keeps_alive or (self._server.is_draining and not self._queue):
                    self._transport.close()
                    return
                if not self._queue:
                    break
                request = self._queue.popleft()
                self._transport.resume_reading()
        except asyncio.CancelledError:
            if not self._is_gone:
                self.abort()
        except Exception:
            log.exception("a handler failed; its connection is closed")
            self.abort()
        finally:
            self._rest()

    def _rest(self) -> None:
        """Everything that came is answered."""
        self.task = None
        if self._refusal is not None and not self._is_gone and not self._transport.is_closing():
            self._send_refusal(*self._refusal)
        elif not self._is_reading:
            self.due = self._loop.time() + self._server.limits.idle_s

    def _send(self, answer: Response, *, has_body: bool = True) -> None:
        if self._is_gone:
            return
        head = self._make_head(answer.status, answer)
        length = b"\r\n" if answer.status == 204 else b"content-length: %d\r\n\r\n" % len(answer.body)
        self._transport.write(head + length + answer.body if has_body else head + length)

    async def _send_stream(self, answer: Stream) -> None:
        """Send parts as they come; one that never comes to an end for the client is left open, and so seen as cut."""
        parts = answer.parts
        try:
            self._transport.write(self._make_head(200, answer) + b"transfer-encoding: chunked\r\n\r\n")
            async for part in parts:
                if self._is_gone:
                    return
                if not part:  # a chunk of no length is the end
                    continue
                self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
                if not self._can_write.is_set():
                    await self._can_write.wait()
            self._transport.write(b"0\r\n\r\n")
        finally:
            await parts.aclose()  # type: ignore[attr-defined]  # an async generator

    def _stays(self) -> bool:
        return self._keeps_alive and not self._server.is_draining

    def _make_head(self, status: int, answer: Response | Stream) -> bytes:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n", self._server.base]
        if answer.content_type:
            lines.append(f"content-type: {answer.content_type}\r\n")
        lines += [f"{name}: {_clean(value)}\r\n" for name, value in answer.headers.items()]
        if not self._stays():
            lines.append("connection: close\r\n")
        return "".join(lines).encode("latin-1", "replace")

    def _refuse(self, status: int, said: str) -> None:
        """Answer what is no request once what came before it is answered, and read no further."""
        if self._is_refused:
            return
        self._is_refused = True
        self._forget_body()
        if self.task is None:
            self._send_refusal(status, said)
        else:
            self._refusal = status, said

    def _send_refusal(self, status: int, said: str) -> None:
        self._refusal, self._keeps_alive = None, False
        self._send(self._server.refusal(status, said))
        # What is still being sent is read and dropped for a while: a reset would take the answer from the client.
        self._transport.write_eof()
        self.due = self._loop.time() + LINGER_S

    def _forget_body(self) -> None:
        self._server.memory -= self._size
        self._parts, self._size = [], 0

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > LONGEST_HEAD:
            self._refuse(431, f"the headers are over {LONGEST_HEAD} bytes")

    # from the server

    def expire(self) -> None:
        """The connection is due: a request that does not come in, a client that does not read, or nothing at all."""
        if self._is_reading and self.task is None and not self._is_refused:
            self._refuse(408, "the request did not come in in time")
        elif self.task is None or not self._can_write.is_set():
            self.abort()

    def close_if_idle(self) -> None:
        if self.task is None and not self._is_reading:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


_REASONS = {status.value: status.phrase for status in HTTPStatus}


def _read_authority(host: bytes | None, port: int | None) -> str:
    """Host and port of a whole URL; empty if it has no host."""
    name = (host or b"").decode("latin-1")
    if ":" in name:
        name = f"[{name}]"
    return name if port is None else f"{name}:{port}"


def _clean(value: str) -> str:
    """A header value without what would end it."""
    if value.isprintable():
        return value
    return "".join(character for character in value if character.isprintable())
