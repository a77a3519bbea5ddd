"""The HTTP server: requests in, whole or streamed responses out.

httptools parses. This module limits memory and time, cancels the work of clients that left, and drains.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus

from ripieno.gateway.http import Handler, Limits, Refusal, Request, Response, Stream
from ripieno.gateway.http_reader import RequestReader

log = logging.getLogger(__name__)

MOST_QUEUED = 16
"""Requests that one connection may send before their answers."""
LINGER_S = 3.0
SWEEP_S = 1.0


class HttpServer:
    """Accepts connections, and passes their requests to one handler.

    Args:
        handler: answers requests; an exception closes the connection.
        refusal: answers bytes that are not a request.
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
        self.base = "".join(f"{name}: {_clean(value)}\r\n" for name, value in (headers or {}).items())
        """The head lines of every response."""
        self.connections: set[_Connection] = set()
        self.memory = 0
        """Bytes of all bodies in memory."""
        self.is_draining = False
        self._sweeper: asyncio.TimerHandle | None = None

    def make_protocol(self) -> asyncio.Protocol:
        """Make the protocol of one new connection."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return _Connection(self)

    async def drain(self, *, within_s: float) -> None:
        """Accept no further request, finish the running ones, then close every connection."""
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
        await asyncio.sleep(0)  # transports close in the next iteration of the loop

    def _sweep(self) -> None:
        """Expire the connections that are due, with one timer for all."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self.connections):
            if connection.due is not None and connection.due <= now:
                connection.expire()
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)


class _Connection(asyncio.Protocol):
    """One client connection; its requests are answered in order."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.task: asyncio.Task[None] | None = None
        self.due: float | None = None
        self._queue: deque[Request] = deque()
        self._refusal: tuple[int, str, Mapping[str, str]] | None = None
        """Status, message and headers of a refusal that waits for earlier answers."""
        self._is_gone = False
        self._keeps_alive = True
        self._can_write = asyncio.Event()
        self._can_write.set()

    # called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport
        self._reader = RequestReader(
            self._server, self._transport, deliver=self._accept_request, refuse=self._accept_refusal
        )
        self._server.connections.add(self)
        self.due = self._loop.time() + self._server.limits.idle_s

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone = True
        self._server.connections.discard(self)
        self._reader.forget_body()
        for request in self._queue:
            self._server.memory -= len(request.body)
        self._queue.clear()
        self._can_write.set()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader.is_refused:
            return
        if not reader.is_reading:
            reader.is_reading = True
            self.due = self._loop.time() + self._server.limits.request_s
        reader.feed(data)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._can_write.clear()
        self.due = self._loop.time() + self._server.limits.stall_s

    def resume_writing(self) -> None:
        self._can_write.set()
        self.due = None

    # called by the reader

    def _accept_request(self, request: Request) -> None:
        self.due = None
        if self.task is None:
            self.task = self._loop.create_task(self._answer_requests(request))
        else:
            self._queue.append(request)
            if len(self._queue) >= MOST_QUEUED:
                self._transport.pause_reading()

    def _accept_refusal(self, status: int, message: str, headers: Mapping[str, str]) -> None:
        """Send a refusal after the answers to earlier requests."""
        if self.task is None:
            self._send_refusal(status, message, headers)
        else:
            self._refusal = status, message, headers

    async def _answer_requests(self, request: Request) -> None:
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
            self._end_requests()

    def _end_requests(self) -> None:
        """Wait for the next request, or send the refusal that waits."""
        self.task = None
        if self._refusal is not None and not self._is_gone and not self._transport.is_closing():
            self._send_refusal(*self._refusal)
        elif not self._reader.is_reading:
            self.due = self._loop.time() + self._server.limits.idle_s

    def _send(self, answer: Response, *, has_body: bool = True) -> None:
        if self._is_gone:
            return
        head = self._make_head(answer)
        length = b"\r\n" if answer.status == 204 else b"content-length: %d\r\n\r\n" % len(answer.body)
        self._transport.write(head + length + answer.body if has_body else head + length)

    async def _send_stream(self, answer: Stream) -> None:
        """Send parts as they arrive. A stream that breaks has no last chunk, so that the client sees the break."""
        parts = answer.parts
        try:
            self._transport.write(self._make_head(answer) + b"transfer-encoding: chunked\r\n\r\n")
            async for part in parts:
                if self._is_gone:
                    return
                if not part:  # an empty chunk would end the stream
                    continue
                self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
                if not self._can_write.is_set():
                    await self._can_write.wait()
            self._transport.write(b"0\r\n\r\n")
        finally:
            try:
                await parts.aclose()  # type: ignore[attr-defined]  # an async generator
            finally:
                if answer.on_end is not None:
                    answer.on_end()

    def _stays(self) -> bool:
        return self._keeps_alive and not self._server.is_draining

    def _make_head(self, answer: Response | Stream) -> bytes:
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}\r\n", self._server.base]
        if answer.content_type:
            lines.append(f"content-type: {answer.content_type}\r\n")
        lines += [f"{name}: {_clean(value)}\r\n" for name, value in answer.headers.items()]
        if not self._stays():
            lines.append("connection: close\r\n")
        return "".join(lines).encode("latin-1", "replace")

    def _send_refusal(self, status: int, message: str, headers: Mapping[str, str]) -> None:
        self._refusal, self._keeps_alive = None, False
        self._send(self._server.refusal(status, message, headers))
        # Further bytes are read and dropped for a while, because a reset would discard the answer at the client.
        self._transport.write_eof()
        self.due = self._loop.time() + LINGER_S

    # called by the server

    def expire(self) -> None:
        """Close a connection that is due: its request is incomplete, its client does not read, or it is idle."""
        if self._reader.is_reading and self.task is None and not self._reader.is_refused:
            self._reader.refuse(408, "the request did not arrive in time")
        elif self.task is None or not self._can_write.is_set():
            self.abort()

    def close_if_idle(self) -> None:
        if self.task is None and not self._reader.is_reading:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


_REASONS = {status.value: status.phrase for status in HTTPStatus}


def _clean(value: str) -> str:
    """Remove from a header's value what would end it."""
    if value.isprintable():
        return value
    return "".join(character for character in value if character.isprintable())
