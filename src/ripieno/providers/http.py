"""HTTP to one address over persistent connections: requests, and whole or streamed replies. aiohttp speaks HTTP.

This module sends again what a closed connection lost, bounds replies in size and time, and closes the connection of a
reply that is no longer needed, so that the server stops writing.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from ripieno.providers.transport import (
    IN_USE,
    BadCertificate,
    Broken,
    HttpConnections,
    ProxyFault,
    Security,
    Unreachable,
    find_proxy,
    translate,
)

__all__ = [
    "BadCertificate", "Broken", "HttpClient", "HttpReply", "ProxyFault", "Security", "Streaming", "Timeouts",
    "Unreachable",
]  # fmt: skip

LONGEST_REPLY = 64 * 1024 * 1024
"""Most bytes of a whole reply, after decompression. The client aborts a longer one."""
LONGEST_HEAD = 64 * 1024
"""Most bytes of the status line, and of one header."""
READ_BYTES = 128 * 1024
"""Unread bytes of a stream: aiohttp stops reading at twice as many."""
LARGE_BODY = 1024 * 1024
"""Bytes of a request body from which aiohttp wants a file, so that it can write in parts."""
END_S = 1.0
"""Seconds that the end of a reply may come after its last part."""
_IN_PARTS = {"accept-encoding": "identity"}
AUTOMATIC = ("accept", "accept-encoding", "content-type", "user-agent")
"""Headers that aiohttp would add."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A reply: its status, its headers by name in any case, and the body if it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


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
        headers: of every request.
        timeouts: of every request.
        security: certificates for https.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeouts: Timeouts | None = None,
        security: Security | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"{base_url!r} is not an http or https address")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        place = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.timeouts = timeouts or Timeouts()
        self.place = f"{place}:{port}"
        """Host and port."""
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._headers = {name: _clean(value) for name, value in (headers or {}).items()}
        self._proxy = find_proxy(parts.scheme, parts.hostname, port)
        self._tls = (security or Security()).make_context() if parts.scheme == "https" else None
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        """Sessions by whether they use a connection once only."""
        self._endings: set[asyncio.Task[None]] = set()

    async def fetch(
        self, method: str, path: str, body: bytes = b"", *, total_s: float | None = None, is_once: bool = False
    ) -> HttpReply:
        """Request a whole reply within `total_s` seconds. Default: that of `timeouts`.

        With `is_once`, the server gets the request at most once, over a new connection: a request over a kept
        connection is sent again if that connection breaks without a reply.

        Raises:
            Unreachable: no connection was possible.
            BadCertificate: the certificate of the server or of this client is not accepted.
            ProxyFault: the proxy does not pass the request on.
            Broken: the reply ended early, was too long, or was not HTTP.
            TimeoutError: the reply took too long.
        """
        async with asyncio.timeout(self.timeouts.total_s if total_s is None else total_s):
            response = await self.open(method, path, body, is_once=is_once)
            is_whole = False
            try:
                content = await self._read(response)
                is_whole = True
            finally:
                if not is_whole:
                    cut(response)
            response.release()
            return HttpReply(response.status, response.headers, content)

    def stream(self, method: str, path: str, body: bytes = b"", *, is_once: bool = False) -> "Streaming":
        """Request a reply part by part, inside an `async with`. Leaving the block early closes the connection.

        See `fetch` for `is_once`.
        """
        return Streaming(self, method, path, body, is_once)

    async def close(self) -> None:
        """Close all connections, including those in use."""
        for ending in tuple(self._endings):
            ending.cancel()
        await asyncio.gather(*self._endings, return_exceptions=True)
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()
        await asyncio.sleep(0)  # a transport closes its socket at the loop's next turn

    async def open(
        self, method: str, path: str, body: bytes, *, is_once: bool, parts: bool = False
    ) -> aiohttp.ClientResponse:
        """Send a request, and return the reply without its body, which comes uncompressed if it is read in parts."""
        session = self._open_session(is_once=is_once)
        url = URL(self._base + path, encoded=True)
        timeout = _limit_connecting(self.timeouts.connect_s)
        while True:
            IN_USE.set(None)
            data = (io.BytesIO(body) if len(body) > LARGE_BODY else body) if body or method != "GET" else None
            try:
                return await session.request(
                    method,
                    url,
                    data=data,
                    headers=_IN_PARTS if parts else None,
                    proxy=self._proxy,
                    allow_redirects=False,
                    timeout=timeout,
                )
            except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError, ValueError) as error:
                wire = IN_USE.get()
                if wire is not None and wire.is_stale and not is_once and _is_loss(error):
                    continue  # the server may just have closed a kept connection: then it read nothing of the request
                if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                    raise
                raise translate(error, place=self.place) from error
            except asyncio.CancelledError:
                if (wire := IN_USE.get()) is not None:
                    wire.cut()
                raise
            finally:
                IN_USE.set(None)

    async def next_part(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the next part of a body; empty at its end. See `fetch` for errors."""
        try:
            return await response.content.readany()
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError) as error:
            raise translate(error, place=self.place) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        while part := await self.next_part(response):
            parts.append(part)
            size += len(part)
            if size > LONGEST_REPLY:
                raise Broken(f"the reply is over {LONGEST_REPLY} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def leave(self, response: aiohttp.ClientResponse) -> None:
        """Keep the connection of a reply that was read to its last part. Its end may still arrive."""
        if response.content.is_eof():
            response.release()
            return
        ending = asyncio.get_running_loop().create_task(_await_end(response))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _open_session(self, *, is_once: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(is_once)
        if session is None:
            session = self._sessions[is_once] = aiohttp.ClientSession(
                connector=HttpConnections(context=self._tls, keeps=not is_once),
                headers={"accept-encoding": "gzip, deflate", **self._headers},
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=AUTOMATIC,
                read_bufsize=READ_BYTES,
                max_line_size=LONGEST_HEAD,
                max_field_size=LONGEST_HEAD,
            )
            session._retry_connection = False  # noqa: SLF001  # `open` knows better when to send again
        return session


@dataclass(slots=True)
class Streaming:
    """A reply that is read part by part. `head` is set inside the block."""

    client: HttpClient
    method: str
    path: str
    body: bytes
    is_once: bool
    head: HttpReply = field(init=False)
    _response: aiohttp.ClientResponse | None = field(init=False, default=None)
    _began: float = field(init=False, default=0.0)

    async def __aenter__(self) -> Self:
        self._began = asyncio.get_running_loop().time()
        async with asyncio.timeout_at(self._began + self.client.timeouts.first_s):
            response = await self.client.open(self.method, self.path, self.body, is_once=self.is_once, parts=True)
        self._response = response
        self.head = HttpReply(response.status, response.headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        response, self._response = self._response, None
        if response is not None:
            if kind is None:
                self.client.leave(response)
            else:
                cut(response)

    async def read(self) -> bytes:
        """Read the whole body, if the status says that it is not a stream.

        Raises:
            Broken: the body ended early, or is too long.
            TimeoutError: no data arrived in time.
        """
        parts, size = [], 0
        async for part in self.parts():
            parts.append(part)
            size += len(part)
            if size > LONGEST_REPLY:
                raise Broken(f"the reply is over {LONGEST_REPLY} bytes")
        return b"".join(parts)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body.

        Raises:
            Broken: the body ended early.
            TimeoutError: no data arrived in time.
        """
        response = self._response
        assert response is not None
        loop, timeouts = asyncio.get_running_loop(), self.client.timeouts
        ends = self._began + timeouts.total_s
        due = self._began + timeouts.first_s
        while True:
            async with asyncio.timeout_at(min(due, ends)):
                part = await self.client.next_part(response)
            if not part:
                return
            yield part
            now = loop.time()
            if now >= ends:
                raise TimeoutError("the reply took too long")
            due = now + timeouts.idle_s


def cut(response: aiohttp.ClientResponse) -> None:
    """Close the connection of a reply at once."""
    connection = response.connection
    transport = connection.transport if connection is not None else None
    if transport is not None:
        transport.abort()
    response.close()


async def _await_end(response: aiohttp.ClientResponse) -> None:
    """Read a short rest, so that the connection can be used again; else close it."""
    try:
        async with asyncio.timeout(END_S):
            while await response.content.readany():
                pass
    except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError):
        pass
    finally:
        if response.content.is_eof():
            response.release()
        else:
            cut(response)


@cache
def _limit_connecting(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds)


def _is_loss(error: Exception) -> bool:
    """Return whether an error is the loss of the connection."""
    return isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError))


def _clean(value: str) -> str:
    """Remove the characters that would end a header value."""
    return "".join(character for character in value if character >= " " and character != "\x7f")
