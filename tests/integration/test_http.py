"""The HTTP server on a real socket: what it accepts, what it refuses, and its time limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.conftest import HANG_S

from ripieno.gateway.http import Limits, Request, Response, Stream
from ripieno.gateway.http_server import HttpServer


class Site:
    """A handler with one path for each behaviour."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.seen: list[Request] = []

    async def answer(self, request: Request) -> Response | Stream:
        self.seen.append(request)
        match request.path:
            case "/raises":
                raise KeyError("a fault of ours")
            case "/waits":
                try:
                    await self.may_go_on.wait()
                except asyncio.CancelledError:
                    self.left.set()
                    raise
            case "/streams":
                return Stream(self.parts())
        return Response(request.body or b"{}", headers={"x-evil": "a\r\nset-cookie: b"})

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            yield b""  # not the end
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            self.left.set()


@asynccontextmanager
async def open_site(**limits: float) -> AsyncIterator[tuple[Site, HttpServer, int]]:
    site = Site()
    bounds = Limits(**limits)  # type: ignore[arg-type]  # fields of it
    server = HttpServer(site.answer, lambda status, said, _: Response(said.encode(), status=status), limits=bounds)
    listening = await asyncio.get_running_loop().create_server(server.make_protocol, "127.0.0.1", 0)
    yield site, server, listening.sockets[0].getsockname()[1]
    listening.close()
    site.may_go_on.set()
    await server.drain(within_s=5.0)
    assert server.memory == 0, "every body is given back"


async def speak(port: int, *parts: bytes) -> bytes:
    """Send bytes as they are; gives all that comes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    async with asyncio.timeout(HANG_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.transport.abort()


def ask(path: str, body: bytes = b"", *, method: str = "POST", headers: str = "connection: close\r\n") -> bytes:
    return f"{method} {path} HTTP/1.1\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_site() as (site, _, port):
        many = [ask(f"/n{index}", b"%d" % index, headers="") for index in range(40)]
        said = await speak(port, b"".join(many) + ask("/last", b"end"))
        assert [part.split(b"\r\n\r\n")[1] for part in said.split(b"HTTP/1.1 200 OK")[1:]] == [
            *(b"%d" % index for index in range(40)), b"end"
        ]  # fmt: skip
        assert [request.path for request in site.seen][:2] == ["/n0", "/n1"]


async def test_heads_bodies_and_header_names_are_parsed() -> None:
    async with open_site() as (site, _, port):
        head = await speak(port, ask("/a%20b?x=1", method="HEAD"))
        assert head.startswith(b"HTTP/1.1 200")
        assert head.endswith(b"\r\n\r\n")
        assert (site.seen[0].path, site.seen[0].query) == ("/a b", "x=1")
        assert b"\r\nset-cookie" not in head, "a header's value cannot begin another"
        waits = ask("/", b"body", headers="expect: 100-continue\r\nconnection: close\r\n")
        assert b"100 Continue" in await speak(port, waits)
        parts = b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n" + parts
        assert (await speak(port, chunked)).endswith(b"abc")
        upgrade = b"GET / HTTP/1.1\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
        assert (await speak(port, upgrade)).startswith(b"HTTP/1.1 200"), "not taken up, but answered"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (ask("/", b"x" * 3000), b"413"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nbb8\r\n" + b"x" * 3000, b"413"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\n\r\n", b"431"),
    ],
)
async def test_a_malformed_or_too_long_request_is_refused(sent: bytes, status: bytes) -> None:
    async with open_site(body_bytes=2000) as (site, _, port):
        assert (await speak(port, sent)).startswith(b"HTTP/1.1 " + status)
        assert not site.seen
        assert (await speak(port, ask("/fine"))).startswith(b"HTTP/1.1 200")


async def test_the_memory_of_all_bodies_is_bounded() -> None:
    async with open_site(memory_bytes=5000) as (site, _, port):
        first = asyncio.create_task(speak(port, ask("/waits", b"x" * 4000)))
        while not site.seen:
            await asyncio.wait({first}, timeout=0.01)
        assert (await speak(port, ask("/", b"x" * 2000))).startswith(b"HTTP/1.1 503")
        site.may_go_on.set()
        assert (await first).startswith(b"HTTP/1.1 200")
        assert (await speak(port, ask("/", b"x" * 2000))).startswith(b"HTTP/1.1 200")


async def test_an_incomplete_request_and_an_idle_connection_are_closed() -> None:
    async with open_site(request_s=0.1, idle_s=0.1) as (_, _, port):
        slow = await speak(port, b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf")
        assert slow.startswith(b"HTTP/1.1 408")
        assert await speak(port) == b""


async def test_a_client_that_leaves_or_does_not_read_cancels_the_work() -> None:
    async with open_site(stall_s=0.2) as (site, _, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/waits"))
        while not site.seen:  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0)
        writer.transport.abort()
        async with asyncio.timeout(HANG_S):
            await site.left.wait()
        site.left.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(ask("/streams"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert len(await reader.readexactly(100_000)) == 100_000
        async with asyncio.timeout(HANG_S):
            await site.left.wait()
        writer.transport.abort()


async def test_a_handler_that_raises_closes_only_its_connection() -> None:
    async with open_site() as (_, _, port):
        assert await speak(port, ask("/raises")) == b""
        assert (await speak(port, ask("/"))).startswith(b"HTTP/1.1 200")


async def test_a_drain_closes_idle_connections_and_waits_for_busy_ones() -> None:
    async with open_site() as (site, server, port):
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        busy = asyncio.create_task(speak(port, ask("/waits", headers="")))
        while not site.seen:
            await asyncio.wait({busy}, timeout=0.01)
        draining = asyncio.create_task(server.drain(within_s=5.0))
        assert await idle_reader.read() == b""
        assert not draining.done()
        site.may_go_on.set()
        said = await busy
        assert b"connection: close" in said
        await draining
        idle_writer.close()
