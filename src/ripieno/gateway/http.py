"""What the HTTP server takes and gives: requests, whole or streamed responses, and its limits."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

LONGEST_BODY = 32 * 1024 * 1024


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
    status: int = 200
    on_end: Callable[[], None] | None = None
    """Called once, when the last part is sent or the client is gone."""


Handler = Callable[[Request], Awaitable[Response | Stream]]
Refusal = Callable[[int, str, Mapping[str, str]], Response]
"""Makes the response to what never reaches the handler, of a status, what is wrong, and the headers read so far."""
