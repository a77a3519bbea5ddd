"""Reads the HTTP requests of one connection, within limits; httptools parses."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools

from ripieno.gateway.http import Request

if TYPE_CHECKING:
    from asyncio import WriteTransport

    from ripieno.gateway.http_server import HttpServer

LONGEST_HEAD = 64 * 1024
SINGLE = frozenset(("host", "origin", "content-type", "content-length", "authorization", "x-api-key", "sec-fetch-site"))
"""Headers that may not be repeated: servers disagree on which value counts, which allows request smuggling."""


class RequestReader:
    """Reads the requests of one connection in order; httptools calls the `on_` methods.

    Args:
        server: holds the limits, and counts the memory of all bodies.
        transport: of the connection; the reader writes `100 Continue` to it.
        deliver: called with each whole request.
        refuse: called with status, message and headers of bytes that are no request; the reader reads nothing after it.
    """

    def __init__(
        self,
        server: "HttpServer",
        transport: "WriteTransport",
        *,
        deliver: Callable[[Request], None],
        refuse: Callable[[int, str, Mapping[str, str]], None],
    ) -> None:
        self._server = server
        self._transport = transport
        self._deliver = deliver
        self._on_refusal = refuse
        self._parser = httptools.HttpRequestParser(self)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._url = b""
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self.is_reading = False
        """Whether a part of a request has arrived."""
        self.is_refused = False

    def feed(self, data: bytes) -> None:
        """Read more bytes."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # upgrades are not supported: answer the request, and close the connection
        except httptools.HttpParserError:
            self.refuse(400, "the bytes are not an HTTP request")

    def refuse(self, status: int, message: str) -> None:
        """Stop reading, and send the client a refusal."""
        if self.is_refused:
            return
        self.is_refused = True
        self.forget_body()
        self._on_refusal(status, message, self._headers)

    def forget_body(self) -> None:
        """Release the memory of an incomplete body."""
        self._server.memory -= self._size
        self._parts, self._size = [], 0

    # from the parser

    def on_message_begin(self) -> None:
        """Forget the previous request."""
        self._url, self._headers, self._parts, self._size, self._head_size = b"", {}, [], 0, 0

    def on_url(self, url: bytes) -> None:
        """Add a part of the address."""
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add one header."""
        key = name.decode("latin-1").lower()
        if key in self._headers and key in SINGLE:
            self.refuse(400, f"the header {key!r} is repeated")
        self._headers[key] = value.decode("latin-1")
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Refuse a body whose stated length is too long."""
        if self.is_refused:
            return
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._server.limits.body_bytes:
            self.refuse(413, f"the body is over {self._server.limits.body_bytes} bytes")
        elif self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Add a part of the body, within the limits."""
        if self.is_refused:
            return
        self._parts.append(body)
        self._size += len(body)
        self._server.memory += len(body)
        if self._size > self._server.limits.body_bytes:
            self.refuse(413, f"the body is over {self._server.limits.body_bytes} bytes")
        elif self._server.memory > self._server.limits.memory_bytes:
            self.refuse(503, "the bodies of all running requests use too much memory; try again soon")

    def on_message_complete(self) -> None:
        """Deliver the request."""
        if self.is_refused:
            return
        self.is_reading = False
        try:
            url = httptools.parse_url(self._url)
        except httptools.HttpParserInvalidURLError:
            self.refuse(400, "the address is malformed")
            return
        authority = "" if self._url.startswith(b"/") else _read_authority(url.host, url.port)
        if url.userinfo or not (authority or self._url.startswith(b"/")):
            self.refuse(400, "the address is malformed")
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
        self._deliver(request)

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > LONGEST_HEAD:
            self.refuse(431, f"the headers are over {LONGEST_HEAD} bytes")


def _read_authority(host: bytes | None, port: int | None) -> str:
    """Return host and port of a whole URL; empty if it has no host."""
    name = (host or b"").decode("latin-1")
    if ":" in name:
        name = f"[{name}]"
    return name if port is None else f"{name}:{port}"
