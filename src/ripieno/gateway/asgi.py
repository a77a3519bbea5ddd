"""The gateway as an ASGI app: it reads whole requests within limits, and sends whole or streamed answers.

Any ASGI server can run it. What only a server can limit (heads, idle and stalled connections) is in `strict.py`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TypeAlias, cast

from ripieno.gateway.http import Handler, Limits, Refusal, Request, Response, Stream

log = logging.getLogger(__name__)

Message: TypeAlias = MutableMapping[str, object]
Scope: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Pairs: TypeAlias = list[tuple[bytes, bytes]]

SINGLE = frozenset(("host", "origin", "content-type", "content-length", "authorization", "x-api-key", "sec-fetch-site"))
"""Headers that may not be repeated: servers disagree on which value counts, which allows request smuggling."""
AUTHORITY = "ripieno.authority"
"""Extension in the scope: host and port of a target that is a whole URL."""
LINGER_S = 3.0
"""Seconds for which the rest of a refused request is read and dropped, because a reset would discard the answer."""


class _Refused(Exception):
    """A request is refused before the handler sees it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HttpApp:
    """Answers the HTTP requests of an ASGI server with one handler.

    Args:
        handler: answers requests.
        refusal: answers what is refused before it is a request.
        limits: of memory and time.
        headers: of every response.
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
        self.memory = 0
        """Bytes of all bodies in memory."""
        self.base = _encode((headers or {}).items())
        """The headers of every response."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: dict[str, str] = {}
        size = 0
        try:
            _read_headers(cast(Pairs, scope["headers"]), headers)
            self._check_length(headers)
            body = await self._read_body(headers, receive)
            if body is None:
                return
            size = len(body)
            await self._answer(_make_request(scope, headers, body), receive, send)
        except _Refused as refused:
            await self.refuse(self.refusal(refused.status, str(refused), headers), receive, send)
        finally:
            self.memory -= size

    def _check_length(self, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length")
        if length is None:
            return
        if not (length.isascii() and length.isdigit()):
            raise _Refused(400, "the header 'content-length' is not a number")
        if "transfer-encoding" in headers:
            raise _Refused(400, "the request has both content-length and transfer-encoding")
        if len(length) > 20 or int(length) > self.limits.body_bytes:
            raise _Refused(413, f"the body is over {self.limits.body_bytes} bytes")

    async def _read_body(self, headers: Mapping[str, str], receive: Receive) -> bytes | None:
        """Read the body and count its memory; None if the client left."""
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            message = await receive()  # at once: there is no body
            return None if message["type"] == "http.disconnect" else b""
        parts: list[bytes] = []
        size = 0
        is_whole = False
        try:
            async with asyncio.timeout(self.limits.request_s):
                while not is_whole:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = cast(bytes, message.get("body", b""))
                    size += len(part)
                    self.memory += len(part)
                    self._check_memory(size)
                    parts.append(part)
                    is_whole = not message.get("more_body", False)
        except TimeoutError as error:
            raise _Refused(408, "the request did not arrive in time") from error
        finally:
            if not is_whole:
                self.memory -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_memory(self, size: int) -> None:
        if size > self.limits.body_bytes:
            raise _Refused(413, f"the body is over {self.limits.body_bytes} bytes")
        if self.memory > self.limits.memory_bytes:
            raise _Refused(503, "the bodies of all running requests use too much memory; try again soon")

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        """Ask the handler, and send its answer. A client that leaves cancels both."""
        task = asyncio.current_task()
        assert task is not None
        left = asyncio.get_running_loop().create_task(_wait_until_gone(receive))
        is_gone = False

        def cancel(ended: asyncio.Task[None]) -> None:
            nonlocal is_gone
            if not ended.cancelled():
                is_gone = True
                task.cancel()

        left.add_done_callback(cancel)
        try:
            answer = await self._ask(request)
            if isinstance(answer, Stream):
                await self._send_stream(answer, send)
            else:
                await self._send(answer, send, has_body=request.method != "HEAD")
        except asyncio.CancelledError:
            if not is_gone:
                raise
            task.uncancel()
        finally:
            left.remove_done_callback(cancel)
            left.cancel()

    async def _ask(self, request: Request) -> Response | Stream:
        try:
            return await self.handler(request)
        except Exception:  # the handler should turn every error into an answer
            log.exception("the handler failed")
            return self.refusal(500, "an internal error; the log of the gateway has the reason", request.headers)

    async def _send(self, answer: Response, send: Send, *, has_body: bool = True) -> None:
        headers = self.make_headers(answer)
        if answer.status != 204:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body if has_body else b"", "more_body": False})

    async def _send_stream(self, answer: Stream, send: Send) -> None:
        """Send parts as they arrive. A stream that breaks has no end, so that the client sees the break."""
        parts = answer.parts
        try:
            headers = self.make_headers(answer)
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            async for part in parts:
                if part:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            try:
                await parts.aclose()  # type: ignore[attr-defined]  # an async generator
            finally:
                if answer.on_end is not None:
                    answer.on_end()

    async def refuse(self, answer: Response, receive: Receive, send: Send) -> None:
        """Send a refusal, drop the rest of the request for a while, and end the connection."""
        headers = self.make_headers(answer)
        headers += [(b"content-length", b"%d" % len(answer.body)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_S):
                while (message := await receive())["type"] != "http.disconnect":
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def make_headers(self, answer: Response | Stream) -> Pairs:
        """Make the headers of an answer, without its length."""
        headers = self.base.copy()
        if answer.content_type:
            headers.append((b"content-type", answer.content_type.encode("latin-1")))
        headers += _encode(answer.headers.items())
        return headers


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _read_headers(pairs: Pairs, headers: dict[str, str]) -> None:
    """Read headers into a mapping; the last value of a repeated one counts.

    Raises:
        _Refused: a header that decides is repeated.
    """
    for name, value in pairs:
        key = name.decode("latin-1").lower()
        if key in headers and key in SINGLE:
            raise _Refused(400, f"the header {key!r} is repeated")
        headers[key] = value.decode("latin-1")


def _make_request(scope: Scope, headers: dict[str, str], body: bytes) -> Request:
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :] or "/"
    client = cast("tuple[str, int] | None", scope.get("client"))
    extensions = cast("Mapping[str, Mapping[str, str]] | None", scope.get("extensions"))
    return Request(
        method=str(scope["method"]),
        path=path,
        query=cast(bytes, scope.get("query_string", b"")).decode("latin-1"),
        headers=headers,
        body=body,
        authority=extensions[AUTHORITY]["host"] if extensions and AUTHORITY in extensions else "",
        client=client[0] if client else "",
    )


def _encode(headers: Iterable[tuple[str, str]]) -> Pairs:
    """Encode headers, without what would end a value."""
    return [
        (
            name.encode("latin-1"),
            (value if value.isprintable() else "".join(c for c in value if c.isprintable())).encode(
                "latin-1", "replace"
            ),
        )
        for name, value in headers
    ]
