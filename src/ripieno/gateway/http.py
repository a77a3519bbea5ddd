"""Requests, responses and limits of the HTTP server."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

LONGEST_BODY = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the HTTP server."""

    body_bytes: int = LONGEST_BODY
    memory_bytes: int = 256 * 1024 * 1024
    """For the bodies of all requests that are being read or answered."""
    request_s: float = 30.0
    """For receiving a whole request, from its first byte."""
    idle_s: float = 75.0
    """The server closes a connection after this time without a request."""
    connections: int = 16_384
    """Most open connections. The server answers a further one with 503."""
    stall_s: float = 60.0
    """The server closes a connection if its client reads nothing for this time."""


@dataclass(slots=True)
class Request:
    """One whole request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in lower case; the last value of a repeated header."""
    body: bytes
    keeps_alive: bool = True
    """Whether the client may send another request on the same connection."""
    authority: str = ""
    """Host and port if the request's target is a whole URL, as for a proxy; else empty."""
    client: str = ""
    """IP address of the client."""


@dataclass(slots=True)
class Response:
    """A whole response."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(slots=True)
class Stream:
    """A streamed response. Closing `parts` early cancels the work behind it."""

    parts: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream; charset=utf-8"
    status: int = 200
    on_end: Callable[[], None] | None = None
    """Called once, after the last part or when the client leaves."""


Handler = Callable[[Request], Awaitable[Response | Stream]]
Refusal = Callable[[int, str, Mapping[str, str]], Response]
"""Makes the response to bytes that are no request, from a status, a message and the headers read so far."""
