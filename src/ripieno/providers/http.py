"""HTTP to one address over persistent connections: requests, and whole or streamed replies.

httptools parses. This module keeps connections, bounds memory and time, and closes a connection whose reply is no
longer needed, so that the server stops writing.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httptools

LONGEST_REPLY = 64 * 1024 * 1024
"""Most bytes of a whole reply. The client aborts a longer one."""
MOST_BUFFERED = 256 * 1024
"""Unread bytes of a stream before the connection stops reading."""
MOST_IDLE = 256
"""Most idle connections that are kept."""
END_S = 1.0
"""Seconds that the end of a reply may come after its last part."""
KEPT_S = 30.0
"""Seconds that an idle connection is kept. Servers close theirs after a minute or more."""


class Unreachable(OSError):
    """No connection was possible."""


class Broken(OSError):
    """The connection ended early, or the reply was not HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Timeouts in seconds."""

    connect_s: float = 5.0
    first_s: float = 60.0
    """From the request to the first byte of a streamed reply's body."""
    idle_s: float = 30.0
    """Between two parts of a streamed reply."""
    total_s: float = 300.0
    """For a whole reply."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of a reply, names in lower case."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Connections to one address.

    Args:
        base_url: an http or https URL; its path is the prefix of every request path.
    """

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str] | None = None, timeouts: Timeouts | None = None
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"{base_url!r} is not an http or https address")
        self.timeouts = timeouts or Timeouts()
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/")
        lines = {"host": parts.netloc.rpartition("@")[2], "accept-encoding": "identity", **(headers or {})}
        self._head = "".join(f"{name}: {_clean(value)}\r\n" for name, value in lines.items())
        self._idle: deque[tuple[float, _ClientConnection]] = deque()
        self._busy: set[_ClientConnection] = set()

    async def fetch(
        self, method: str, path: str, body: bytes = b"", *, total_s: float | None = None, is_once: bool = False
    ) -> HttpReply:
        """Request a whole reply within `total_s` seconds. Default: that of `timeouts`.

        With `is_once`, the server gets the request at most once, over a new connection: a request over a kept
        connection is sent again if that connection breaks without a reply.

        Raises:
            Unreachable: no connection was possible.
            Broken: the reply ended early, or was not HTTP.
            TimeoutError: the reply took too long.
        """
        async with asyncio.timeout(self.timeouts.total_s if total_s is None else total_s):
            return await self._fetch(self._request(method, path, body), is_once=is_once)

    def stream(self, method: str, path: str, body: bytes = b"", *, is_once: bool = False) -> "Streaming":
        """Request a reply part by part, inside an `async with`. Leaving the block early closes the connection.

        See `fetch` for `is_once`.
        """
        return Streaming(self, self._request(method, path, body), is_once)

    async def close(self) -> None:
        """Close all connections, including those in use."""
        for _, connection in self._idle:
            connection.abort()
        self._idle.clear()
        for connection in tuple(self._busy):
            connection.abort()
        await asyncio.sleep(0)  # a transport closes its socket at the loop's next turn

    async def _fetch(self, request: bytes, *, is_once: bool) -> HttpReply:
        while True:
            connection, is_fresh = await self.acquire(is_new=is_once)
            try:
                return await connection.fetch(request)
            except Broken:
                # The server may just have closed a kept connection: then it read nothing of the request.
                if is_fresh or connection.has_reply:
                    raise
            finally:
                self.release(connection, is_read=False)

    async def acquire(self, *, is_new: bool = False) -> "tuple[_ClientConnection, bool]":
        """Acquire a connection, and return whether it is new. With `is_new` it always is."""
        now = asyncio.get_running_loop().time()
        while self._idle and now - self._idle[0][0] > KEPT_S:
            self._idle.popleft()[1].abort()
        while self._idle and not is_new:
            connection = self._idle.pop()[1]
            if connection.is_open:
                self._busy.add(connection)
                return connection, False
        connection = await self._connect()
        self._busy.add(connection)
        return connection, True

    def release(self, connection: "_ClientConnection", *, is_read: bool = True) -> None:
        """Keep a connection whose reply is complete, or close it. With `is_read`, the end may still arrive."""
        if is_read and connection.awaits_end(self.release):
            return
        self._busy.discard(connection)
        if connection.is_reusable and len(self._idle) < MOST_IDLE:
            self._idle.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.abort()

    async def _connect(self) -> "_ClientConnection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                _, connection = await loop.create_connection(
                    _ClientConnection,
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError as error:
            raise Unreachable(f"no connection within {self.timeouts.connect_s} s") from error
        except (OSError, ValueError) as error:
            raise Unreachable(str(error)) from error
        return connection

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        length = f"content-length: {len(body)}\r\n" if body or method != "GET" else ""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._head}{length}\r\n"
        return head.encode("latin-1", "replace") + body


@dataclass(slots=True)
class Streaming:
    """A reply that is read part by part. `head` is set inside the block."""

    client: HttpClient
    request: bytes
    is_once: bool
    head: Head = field(init=False)
    _connection: "_ClientConnection | None" = field(init=False, default=None)
    _began: float = field(init=False, default=0.0)

    async def __aenter__(self) -> Self:
        timeouts = self.client.timeouts
        self._began = asyncio.get_running_loop().time()
        while True:
            connection, is_fresh = await self.client.acquire(is_new=self.is_once)
            try:
                async with asyncio.timeout_at(self._began + timeouts.first_s):
                    self.head = await connection.open(self.request)
                self._connection = connection
                return self
            except Broken:
                if is_fresh or connection.has_reply:
                    raise
            finally:
                if self._connection is None:
                    self.client.release(connection, is_read=False)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self.client.release(self._connection, is_read=kind is None)
            self._connection = None

    async def read(self) -> bytes:
        """Read the whole body, if the status says that it is not a stream."""
        return b"".join([part async for part in self.parts()])

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body.

        Raises:
            Broken: the body ended early.
            TimeoutError: no data arrived in time.
        """
        connection = self._connection
        assert connection is not None
        timeouts = self.client.timeouts
        connection.expect(
            self._began + timeouts.first_s, then_within=timeouts.idle_s, ends=self._began + timeouts.total_s
        )
        while (part := await connection.next_part()) is not None:
            yield part


class _ClientConnection(asyncio.Protocol):
    """One connection, with one exchange at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.is_open = False
        self.has_reply = False
        """Whether any byte of the current reply has arrived."""
        self._is_complete = True
        self._keeps_alive = True
        self._error: OSError | TimeoutError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._parts: deque[bytes] = deque()
        self._buffered = 0
        self._is_whole = False
        self._is_paused = False
        self._has_head = False
        self._has_length = False
        self._headers: dict[str, str] = {}
        self._release_when_ended: Callable[[_ClientConnection], None] | None = None
        self._idle_s = 0.0
        self._due = self._ends = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_reusable(self) -> bool:
        """Return whether another exchange may follow."""
        return self.is_open and self._is_complete and self._keeps_alive and self._error is None

    async def fetch(self, request: bytes) -> HttpReply:
        self._begin(request, is_whole=True)
        while not self._is_complete:
            await self._wait()
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        return HttpReply(self._parser.get_status_code(), self._headers, body)

    async def open(self, request: bytes) -> Head:
        self._begin(request, is_whole=False)
        while not self._has_head:
            await self._wait()
        return Head(self._parser.get_status_code(), self._headers)

    def expect(self, due: float, *, then_within: float, ends: float) -> None:
        """Fail if no part arrives until `due`, later within `then_within` seconds of the last one, and at `ends`."""
        self._idle_s, self._ends = then_within, ends
        self._due = self._loop.time() + then_within if self._parts else due
        self._arm()

    async def next_part(self) -> bytes | None:
        while not self._parts:
            if self._is_complete:
                self._disarm()
                return None
            await self._wait()
        part = self._parts.popleft()
        self._buffered -= len(part)
        if self._is_paused and self._buffered < MOST_BUFFERED // 2:
            self._is_paused = False
            self._transport.resume_reading()
        return part

    def awaits_end(self, release: "Callable[[_ClientConnection], None]") -> bool:
        """Wait briefly in the background for the end of a reply. Return False if there is none to wait for."""
        if self._is_complete or not self.is_open or self._error is not None or self._release_when_ended is not None:
            return False
        self._release_when_ended = release
        self.expect(self._loop.time() + END_S, then_within=END_S, ends=self._loop.time() + END_S)
        return True

    def abort(self) -> None:
        self._disarm()
        if self.is_open:
            self.is_open = False
            self._transport.abort()

    def _begin(self, request: bytes, *, is_whole: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self._is_whole = {}, is_whole
        self._has_head = self._has_length = self.has_reply = self._is_complete = False
        self._buffered = 0
        self._transport.write(request)

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        if not self.is_open:
            raise Broken("the connection ended")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        if self._release_when_ended is not None and (self._is_complete or not self.is_open):
            self._disarm()
            release = self._release_when_ended
            release(self)
            self._release_when_ended = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: OSError | TimeoutError) -> None:
        if self._error is None:
            self._error = error
        self.abort()
        self._wake()

    def _arm(self) -> None:
        self._disarm()
        self._timer = self._loop.call_at(min(self._due, self._ends), self._check_time)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_time(self) -> None:
        """Fail after a timeout. Each part moves the due time; the timer is only reset when it fires."""
        self._timer = None
        now = self._loop.time()
        if self._is_paused:  # the reader is slow, not the server
            self._due = now + self._idle_s
        if now >= min(self._due, self._ends):
            self._fail(TimeoutError("no data arrived in time"))
        elif not self._is_complete:
            self._arm()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._is_complete:  # data without a request
            self.abort()
            return
        self.has_reply = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(Broken(f"the reply is not HTTP ({error})"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._disarm()
        if self._has_head and not self._is_complete and not self._has_length and exc is None:
            self._is_complete = True  # the end of the connection is the end of the body
        elif not self._is_complete and self._error is None:
            self._error = Broken("the connection ended before the reply did")
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        self._headers[key] = value.decode("latin-1")
        if key in ("content-length", "transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:  # an interim reply; the final one follows
            self._headers = {}
            return
        self._has_head = True
        if not self._is_whole:
            self._wake()

    def on_body(self, body: bytes) -> None:
        if self._release_when_ended is not None:
            return
        self._parts.append(body)
        self._buffered += len(body)
        self._due = self._loop.time() + self._idle_s
        if self._is_whole:
            if self._buffered > LONGEST_REPLY:
                self._fail(Broken(f"the reply is over {LONGEST_REPLY} bytes"))
        else:
            if self._buffered > MOST_BUFFERED and not self._is_paused:
                self._is_paused = True
                self._transport.pause_reading()
            self._wake()

    def on_message_complete(self) -> None:
        if not self._has_head:
            return
        self._is_complete = True
        self._keeps_alive = self._parser.should_keep_alive() and self._has_length
        self._wake()


def _clean(value: str) -> str:
    """Remove the characters that would end a header value."""
    return "".join(character for character in value if character >= " " and character != "\x7f")
