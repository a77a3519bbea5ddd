"""The HTTP server on a real socket: what it accepts, what it refuses, and its time limits."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from benchmarks.gateway.shapes import SHAPES, Shape
from tests.certificates import Authority
from tests.conftest import HANG_S, pause

from ripieno.gateway.asgi import HttpApp
from ripieno.gateway.http import Limits, Request, Response, Stream
from ripieno.gateway.listening import HttpServer


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
async def open_site(
    *, tls: ssl.SSLContext | None = None, **limits: float
) -> AsyncIterator[tuple[Site, HttpServer, int]]:
    site = Site()
    bounds = Limits(**limits)  # type: ignore[arg-type]  # fields of it
    app = HttpApp(site.answer, refuse, limits=bounds, headers={"x-of-every": "answer"})
    server = HttpServer(app)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    await server.start(listener, tls=tls)
    try:
        yield site, server, listener.getsockname()[1]
    finally:
        site.may_go_on.set()
        await server.drain(within_s=5.0)
    assert app.memory == 0, "every body is given back"


def refuse(status: int, said: str, headers: Mapping[str, str]) -> Response:
    return Response(said.encode(), status=status)


async def speak(port: int, *parts: bytes, quiet_s: float | None = None) -> bytes:
    """Send bytes as they are; gives all until the connection ends, or is quiet after its first bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = bytearray()
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            if len(parts) > 1:
                await asyncio.sleep(0)
        within_s = HANG_S
        while True:
            async with asyncio.timeout(within_s):
                part = await reader.read(65536)
            if not part:
                break
            got += part
            within_s = quiet_s or HANG_S
    except TimeoutError:
        assert got, "the server does not answer"
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return bytes(got)


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
        assert (await speak(port, upgrade, quiet_s=0.05)).startswith(b"HTTP/1.1 200"), "not taken up, but answered"


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
        said = await speak(port, ask("/raises", headers=""), ask("/never"))
        assert said.startswith(b"HTTP/1.1 500")
        assert b"\r\nx-of-every: answer\r\n" in said
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


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
async def test_no_odd_shape_is_taken(shape: Shape) -> None:
    """Whole, and in pieces of one byte, as a parser that keeps state sees them."""
    for cuts in {False, len(shape.sent) < 500}:
        async with open_site() as (site, _, port):
            pieces = [shape.sent[n : n + 1] for n in range(len(shape.sent))] if cuts else [shape.sent]
            said = await speak(port, *pieces, quiet_s=0.05)
            statuses = [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]]
            if shape.is_taken:
                assert statuses == [b"200"]
                assert len(site.seen) == 1
            else:
                assert not [status for status in statuses if status.startswith(b"2")], said[:300]
                assert statuses, "a refusal says why"
                assert not site.seen
                assert b"\r\nconnection: close\r\n" in said
                assert b"\r\nx-of-every: answer\r\n" in said, "a refusal has the headers of every answer"


async def test_an_upgrade_with_a_body_in_pieces_is_answered_in_http_1_1() -> None:
    """Java's default client offers h2c with each request, and sends the body in its own segment."""
    head = b"POST /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 6\r\nHost: localhost\r\n"
    head += b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n\r\n"
    head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    async with open_site() as (site, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in (head, b"abc", b"def"):
            writer.write(piece)
            await pause(0.02)
        async with asyncio.timeout(HANG_S):
            said = await reader.read()
        writer.close()
        assert said.startswith(b"HTTP/1.1 200")
        assert said.endswith(b"abcdef")
        assert site.seen[0].body == b"abcdef"
        assert "upgrade" not in site.seen[0].headers


async def test_a_chunked_upgrade_a_pipelined_one_and_connect() -> None:
    offer = "connection: upgrade\r\nupgrade: h2c\r\n"
    async with open_site() as (site, _, port):
        chunked = f"POST /a HTTP/1.1\r\n{offer}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode()
        many = ask("/b", b"b", headers=offer) * 30
        said = await speak(
            port, chunked + many + ask("/c", b"c", headers=offer.replace("upgrade\r", "upgrade, close\r"))
        )
        assert said.count(b"HTTP/1.1 200") == 32
        assert [seen.body for seen in site.seen] == [b"abc", *[b"b"] * 30, b"c"]
        both = f"POST /a HTTP/1.1\r\n{offer}transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nabc".encode()
        assert (await speak(port, both)).startswith(b"HTTP/1.1 400")
        connect = b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost:80\r\n\r\n"
        assert (await speak(port, connect)).startswith(b"HTTP/1.1 405")
        assert len(site.seen) == 32


async def test_trailers_are_no_headers() -> None:
    trailers = b"0\r\nauthorization: Bearer stolen\r\nx-b: c\r\n\r\n"
    sent = b"POST /a HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    async with open_site() as (site, _, port):
        assert (await speak(port, sent, trailers)).startswith(b"HTTP/1.1 200")
        assert site.seen[0].body == b"abc"
        assert set(site.seen[0].headers) == {"connection", "transfer-encoding"}
        long = b"0\r\n" + b"x-b: " + b"y" * 70_000 + b"\r\n\r\n"
        assert not (await speak(port, sent, long)).startswith(b"HTTP/1.1 200")
        assert len(site.seen) == 1


async def test_a_target_that_is_a_whole_address_names_its_host() -> None:
    async with open_site() as (site, _, port):
        for target in ("http://localhost:81/a?b=c", "https://[::1]/a"):
            await speak(port, ask(target))
        assert [(seen.authority, seen.path, seen.query) for seen in site.seen] == [
            ("localhost:81", "/a", "b=c"), ("[::1]", "/a", "")
        ]  # fmt: skip
        for target in ("ftp://localhost/a", "http:///a", "localhost:443", "*"):
            assert (await speak(port, ask(target))).startswith(b"HTTP/1.1 400"), target


async def test_a_refusal_comes_after_the_answers_to_earlier_requests() -> None:
    async with open_site() as (site, _, port):
        speaking = asyncio.create_task(speak(port, ask("/waits", b"first", headers="") + b"nonsense\r\n\r\n"))
        while not site.seen:
            await asyncio.wait({speaking}, timeout=0.01)
        await pause(0.05)
        site.may_go_on.set()
        said = await speaking
        assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]
        assert said.index(b"first") < said.index(b"HTTP/1.1 400")


async def test_what_follows_a_last_request_is_dropped() -> None:
    async with open_site() as (site, _, port):
        said = await speak(port, ask("/a") + ask("/smuggled"))
        assert said.count(b"HTTP/1.1 200") == 1
        assert [seen.path for seen in site.seen] == ["/a"]


async def test_a_client_that_resets_after_several_requests_cancels_the_running_one() -> None:
    async with open_site() as (site, _, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/streams", headers="") + ask("/b", headers=""))
        while not site.seen:  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0)
        await pause(0.05)
        writer.transport.abort()
        async with asyncio.timeout(HANG_S):
            await site.left.wait()
        assert [seen.path for seen in site.seen] == ["/streams"]


async def test_a_client_that_leaves_cancels_the_work_at_once() -> None:
    async with open_site() as (site, _, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/waits", headers=""))
        while not site.seen:  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0)
        await pause(0.05)
        began = time.monotonic()
        writer.close()
        async with asyncio.timeout(HANG_S):
            await site.left.wait()
        assert time.monotonic() - began < 0.1


async def test_a_half_sent_head_and_empty_lines_expire() -> None:
    async with open_site(request_s=0.1, idle_s=30.0) as (_, _, port):
        assert (await speak(port, b"GET /a HTTP/1.1\r\nhost: loc")).startswith(b"HTTP/1.1 408")
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(HANG_S):
            while not writer.transport.is_closing():
                writer.write(b"\r\n")
                await pause(0.05)


async def test_two_thousand_half_open_clients_hold_up_nobody() -> None:
    async with open_site() as (_, _, port):
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2000)]
        for _, writer in clients:
            writer.write(b"POST /a HTTP/1.1\r\nhost: localhost\r\ncontent-le")
        began = time.monotonic()
        assert (await speak(port, ask("/fine"))).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < 1.0
        for _, writer in clients:
            writer.transport.abort()


async def test_a_connection_beyond_the_limit_is_refused() -> None:
    async with open_site(connections=2) as (_, _, port):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await pause(0.05)
        assert (await speak(port, ask("/"))).startswith(b"HTTP/1.1 503")
        for _, writer in held:
            writer.close()
        await pause(0.05)
        assert (await speak(port, ask("/"))).startswith(b"HTTP/1.1 200")


async def test_a_body_in_pieces_that_are_too_many_bytes_is_refused_before_its_end() -> None:
    async with open_site(body_bytes=100_000) as (site, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        async with asyncio.timeout(HANG_S):
            for _ in range(40):
                writer.write(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.transport.abort()
        assert not site.seen


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_requests_and_refusals_pass_over_tls(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=authority.ca_file)
    trusting.minimum_version = trusting.maximum_version = version
    async with open_site(tls=authority.sign("localhost").serve(), request_s=0.2) as (_, _, port):
        for sent, status in (
            (ask("/a", b"x" * 200_000), b"200"),
            (b"nonsense\r\n\r\n", b"400"),
            (b"GET /a HTT", b"408"),
        ):
            reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting)
            writer.write(sent)
            async with asyncio.timeout(HANG_S):
                assert (await reader.readline()).startswith(b"HTTP/1.1 " + status)
                await reader.read()
            writer.transport.abort()
        assert await speak(port, ask("/a")) == b"", "who speaks no TLS is not answered"
