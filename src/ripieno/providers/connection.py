"""One HTTP connection: writes a request, and reads its reply within bounds of memory and time. httptools parses."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httptools

LONGEST_REPLY = 64 * 1024 * 1024
"""Most bytes of a whole reply. The client aborts a longer one."""
MOST_BUFFERED = 256 * 1024
"""Unread bytes of a stream before the connection stops reading."""
END_S = 1.0
"""Seconds that the end of a reply may come after its last part."""


class Broken(OSError):
    """The connection ended early, or the reply was not HTTP."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A reply: its status, its headers with names in lower case, and the body if it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class _Parsed:
    """The reply of one exchange, as far as it was parsed. httptools calls the methods `on_*`."""

    def __init__(self, on_body: Callable[[bytes], None], on_change: Callable[[], None]) -> None:
        self.on_body = on_body
        self.headers: dict[str, str] = {}
        self.has_head = False
        self.is_complete = False
        self.keeps_alive = True
        self._on_change = on_change
        self._has_length = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def close(self) -> None:
        """Complete a body without a stated length: the end of the connection is its end."""
        self.is_complete = self.is_complete or (self.has_head and not self._has_length)

    def read(self, body: bytes = b"") -> HttpReply:
        return HttpReply(self._parser.get_status_code(), self.headers, body)

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        self.headers[key] = value.decode("latin-1")
        if key in ("content-length", "transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:  # an interim reply; the final one follows
            self.headers = {}
            return
        self.has_head = True
        self._on_change()

    def on_message_complete(self) -> None:
        if not self.has_head:
            return
        self.is_complete = True
        self.keeps_alive = self._parser.should_keep_alive() and self._has_length
        self._on_change()


class Connection(asyncio.Protocol):
    """One connection, with one exchange at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.is_open = False
        self.has_reply = False
        """Whether any byte of the current reply has arrived."""
        self._reply: _Parsed | None = None
        self._error: OSError | TimeoutError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._parts: deque[bytes] = deque()
        self._buffered = 0
        self._is_whole = False
        self._is_paused = False
        self._release_when_ended: Callable[[Connection], None] | None = None
        self._idle_s = 0.0
        self._due = self._ends = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_reusable(self) -> bool:
        """Return whether another exchange may follow."""
        keeps_alive = self._reply is None or self._reply.keeps_alive
        return self.is_open and self._is_complete and keeps_alive and self._error is None

    @property
    def _is_complete(self) -> bool:
        return self._reply is None or self._reply.is_complete

    async def fetch(self, request: bytes) -> HttpReply:
        """Send a request, and return the whole reply."""
        reply = self._begin(request, is_whole=True)
        while not reply.is_complete:
            await self._wait()
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        return reply.read(body)

    async def open(self, request: bytes) -> HttpReply:
        """Send a request, and return the reply without its body."""
        reply = self._begin(request, is_whole=False)
        while not reply.has_head:
            await self._wait()
        return reply.read()

    def expect(self, due: float, *, then_within: float, ends: float) -> None:
        """Fail if no part arrives until `due`, later within `then_within` seconds of the last one, and at `ends`."""
        self._idle_s, self._ends = then_within, ends
        self._due = self._loop.time() + then_within if self._parts else due
        self._arm()

    async def next_part(self) -> bytes | None:
        """Return the next part of the body; None after the last one."""
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

    def awaits_end(self, release: "Callable[[Connection], None]") -> bool:
        """Wait briefly in the background for the end of a reply. Return False if there is none to wait for."""
        if self._is_complete or not self.is_open or self._error is not None or self._release_when_ended is not None:
            return False
        self._release_when_ended = release
        self.expect(self._loop.time() + END_S, then_within=END_S, ends=self._loop.time() + END_S)
        return True

    def abort(self) -> None:
        """Close the connection at once."""
        self._disarm()
        if self.is_open:
            self.is_open = False
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._reply is None or self._reply.is_complete:  # data without a request
            self.abort()
            return
        self.has_reply = True
        try:
            self._reply.feed(data)
        except httptools.HttpParserError as error:
            self._fail(Broken(f"the reply is not HTTP ({error})"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.is_open = False
        self._disarm()
        if self._reply is not None and exc is None:
            self._reply.close()
        if not self._is_complete and self._error is None:
            self._error = Broken("the connection ended before the reply did")
        self._wake()

    def _begin(self, request: bytes, *, is_whole: bool) -> _Parsed:
        self._reply = reply = _Parsed(self._take_part, self._note_progress)
        self._is_whole, self.has_reply, self._buffered = is_whole, False, 0
        self._transport.write(request)
        return reply

    def _take_part(self, body: bytes) -> None:
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

    def _note_progress(self) -> None:
        if self._is_complete or not self._is_whole:
            self._wake()

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
