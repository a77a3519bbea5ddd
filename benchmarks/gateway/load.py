"""A closed loop of keep-alive connections, and what it saw: the driver of the gateway benchmarks."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import httptools
import numpy as np


@dataclass(slots=True)
class Seen:
    """What a load has seen."""

    latency_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    """To the first event with content, where it streams."""
    bad: int = 0
    """Requests without a good answer."""
    why: Counter[str] = field(default_factory=Counter)
    """What those met: a status with the beginning of its body, or the end of the connection."""
    chunks: int = 0

    def quantile_ms(self, share: float) -> float:
        return float(np.quantile(self.latency_s, share)) * 1e3 if self.latency_s else float("nan")


class _Lane(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], seen: Seen, ends: float) -> None:
        self._requests, self._seen, self._ends = requests, seen, ends
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._has_first = False
        self._began = 0.0
        self._told = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._seen.bad += 1
            self._seen.why["connection lost"] += 1
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._told = body
        events = body.count(b"data:")
        if events and not self._has_first:
            self._has_first = True
            self._seen.first_s.append(time.perf_counter() - self._began)
        self._seen.chunks += events

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        if self._parser.get_status_code() == 200:
            self._seen.latency_s.append(now - self._began)
        else:
            self._seen.bad += 1
            self._seen.why[f"{self._parser.get_status_code()} {self._told[:200]!r}"] += 1
        if now >= self._ends:
            self.done.set_result(None)
            self._transport.close()
        else:
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._has_first = False
        self._began = time.perf_counter()
        self._transport.write(next(self._requests))


async def run_load(
    port: int, path: str, bodies: Sequence[bytes], *, lanes: int, seconds: float, headers: Mapping[str, str]
) -> Seen:
    """Ask over `lanes` connections, one request after the other on each, for so many seconds; the bodies in turn."""
    given = {"host": "127.0.0.1", "content-type": "application/json", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    begins = f"POST {path} HTTP/1.1\r\n{lines}content-length: "
    requests = cycle([f"{begins}{len(body)}\r\n\r\n".encode() + body for body in bodies])
    seen, ends = Seen(), time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: _Lane(requests, seen, ends), "127.0.0.1", port) for _ in range(lanes)]
    waiting = [lane.done for _, lane in made]
    await asyncio.wait(waiting, timeout=seconds + 60.0)
    for transport, _ in made:
        transport.abort()
    return seen
