"""HTTP to one address over persistent connections: requests, and whole or streamed replies.

This module keeps connections, and closes one whose reply is no longer needed, so that the server stops writing.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from ripieno.providers.connection import Broken, Connection, HttpReply

MOST_IDLE = 256
KEPT_S = 30.0
"""Seconds that an idle connection is kept. Servers close theirs after a minute or more."""


class Unreachable(OSError):
    """No connection was possible."""


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
        self._idle: deque[tuple[float, Connection]] = deque()
        self._busy: set[Connection] = set()

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

    async def acquire(self, *, is_new: bool = False) -> tuple[Connection, bool]:
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

    def release(self, connection: Connection, *, is_read: bool = True) -> None:
        """Keep a connection whose reply is complete, or close it. With `is_read`, the end may still arrive."""
        if is_read and connection.awaits_end(self.release):
            return
        self._busy.discard(connection)
        if connection.is_reusable and len(self._idle) < MOST_IDLE:
            self._idle.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.abort()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                _, connection = await loop.create_connection(
                    Connection,
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
    head: HttpReply = field(init=False)
    _connection: Connection | None = field(init=False, default=None)
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


def _clean(value: str) -> str:
    """Remove the characters that would end a header value."""
    return "".join(character for character in value if character >= " " and character != "\x7f")
