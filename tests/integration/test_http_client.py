"""The HTTP client on real sockets: proxies, TLS, stale connections, limits, and what a cancel reaches."""

import asyncio
import gzip
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from tests.certificates import Authority
from tests.conftest import HANG_S, pause
from tests.integration.conftest import open_gateway

from ripieno.providers import http
from ripieno.providers.http import (
    BadCertificate,
    Broken,
    HttpClient,
    ProxyFault,
    Security,
    Timeouts,
    Unreachable,
)
from ripieno.providers.transport import translate

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CANCEL_S = 0.1
"""Within this time a cancelled call ends upstream."""


@dataclass
class Upstream:
    """What a server saw."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    left_at: float = 0.0
    left: asyncio.Event = field(default_factory=asyncio.Event)


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Upstream], Awaitable[bool]]
"""Answers one request; returns whether the connection takes another."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@asynccontextmanager
async def upstream(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    seen = Upstream()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                seen.heads.append(head)
                seen.came.set()
                if not await answer(reader, writer, seen):
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def client(
    base: str, *, timeouts: Timeouts | None = None, security: Security | None = None
) -> AsyncIterator[HttpClient]:
    made = HttpClient(base, timeouts=timeouts, security=security, headers={"content-type": "application/json"})
    try:
        yield made
    finally:
        await made.close()


def reply(body: bytes = b"{}", *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 200 OK\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def answer_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
    writer.write(reply())
    await writer.drain()
    return True


async def answer_never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
    with suppress(ConnectionError, ssl.SSLError):
        while await reader.read(65536):
            pass
    seen.left_at = time.monotonic()
    seen.left.set()
    return False


async def answer_begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
    return await answer_never(reader, writer, seen)


# proxies


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
    writer.write(reply(b"from the proxy"))
    await writer.drain()
    return True


async def test_http_proxy_gets_the_request_for_a_name_that_only_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    async with upstream(forward) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{proxy.port}")
        async with client("http://worker.invalid:81/v1") as asking:
            got = await asking.fetch("GET", "/models")
        assert got.body == b"from the proxy"
        (head,) = proxy.heads
        assert head.startswith(b"GET http://worker.invalid:81/v1/models HTTP/1.1\r\n")
        assert b"proxy-authorization: basic dxnlcjpzzwnyzxq=" in head.lower()


async def test_https_proxy_tunnels_to_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with upstream(answer_ok, tls=authority.sign("worker.invalid").serve()) as server:

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    target.write(data)
                target.close()

            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
            return False

        async with upstream(tunnel) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            security = Security(ca_file=authority.ca_file)
            async with client("https://worker.invalid/v1", security=security) as asking:
                assert (await asking.fetch("GET", "/models")).status == 200
            assert proxy.heads[0].startswith(b"CONNECT worker.invalid:443 HTTP/1.1\r\n")
            assert server.heads[0].startswith(b"GET /v1/models HTTP/1.1\r\n")


async def test_no_proxy_and_this_machine_are_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with upstream(answer_ok) as server:
        for host in ("127.0.0.1", "localhost"):
            async with client(f"http://{host}:{server.port}") as asking:
                assert (await asking.fetch("GET", "/")).status == 200
    monkeypatch.setenv("NO_PROXY", "worker.invalid")
    async with client("http://api.worker.invalid") as asking:
        with pytest.raises(Unreachable):
            await asking.fetch("GET", "/")
    async with client("http://other.invalid") as asking:
        with pytest.raises(ProxyFault, match=r"the proxy 127.0.0.1:9 for other.invalid:80 cannot be reached"):
            await asking.fetch("GET", "/")


async def test_a_proxy_that_refuses_is_reported_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        return False

    async with upstream(refuse) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
        async with client("https://worker.invalid") as asking:
            with pytest.raises(ProxyFault, match=r"the proxy for worker.invalid:443 answered 407"):
                await asking.fetch("GET", "/")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ValueError, match="is not an HTTP proxy"):
        HttpClient("https://worker.invalid")


# TLS


async def test_an_unknown_authority_is_reported_as_a_bad_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    other = Authority(tmp_path, name="other")
    async with upstream(answer_ok, tls=authority.sign("127.0.0.1").serve()) as server:
        base = f"https://127.0.0.1:{server.port}"
        for security in (None, Security(ca_file=other.ca_file)):
            async with client(base, security=security) as asking:
                with pytest.raises(BadCertificate, match=rf"127.0.0.1:{server.port} is not accepted .*ca_file"):
                    await asking.fetch("GET", "/")
        async with client(base, security=Security(ca_file=authority.ca_file)) as asking:
            assert (await asking.fetch("GET", "/")).status == 200
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        async with client(base) as asking:
            assert (await asking.fetch("GET", "/")).status == 200


async def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with upstream(answer_ok, tls=authority.sign("elsewhere.example").serve()) as server:
        async with client(f"https://127.0.0.1:{server.port}", security=Security(ca_file=authority.ca_file)) as asking:
            with pytest.raises(BadCertificate, match="mismatch"):
                await asking.fetch("GET", "/")
        assert not server.heads


async def test_a_client_shows_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.sign("client", name="client")
    async with upstream(answer_ok, tls=authority.sign("127.0.0.1").serve(clients=authority)) as server:
        base = f"https://127.0.0.1:{server.port}"
        shown = Security(ca_file=authority.ca_file, cert_file=own.cert_file, key_file=own.key_file)
        async with client(base, security=shown) as asking:
            assert (await asking.fetch("POST", "/", b"{}")).status == 200
        async with client(base, security=Security(ca_file=authority.ca_file)) as asking:
            with pytest.raises((BadCertificate, Broken)):  # the server's alert may get lost when it resets
                await asking.fetch("POST", "/", b"{}")
        assert len(server.heads) == 1


def test_a_server_that_demands_a_certificate_is_reported_as_one() -> None:
    alert = aiohttp.ClientOSError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required")
    found = translate(alert, place="worker.invalid:443")
    assert isinstance(found, BadCertificate)
    assert str(found) == "worker.invalid:443 demands a certificate of this client; name its file in cert_file"


def test_certificate_files_that_do_not_exist_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(ValueError, match=r"ca_file .*missing.pem"):
        HttpClient("https://worker.invalid", security=Security(ca_file=missing))
    with pytest.raises(ValueError, match=r"cert_file .*missing.pem"):
        HttpClient("https://worker.invalid", security=Security(cert_file=missing))
    with pytest.raises(ValueError, match="key_file needs cert_file"):
        Security(key_file=missing)


# stale connections


def answer_then(second: bytes) -> Answer:
    """Answer the first request of each connection, and the second with `second` and the end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
        if len(seen.heads) != 2:
            return await answer_ok(reader, writer, seen)
        writer.write(second)
        return False

    return answer


@pytest.mark.parametrize("streams", [False, True])
async def test_a_request_is_sent_again_if_a_kept_connection_ends_without_a_reply(*, streams: bool) -> None:
    async with upstream(answer_then(b"")) as server, client(f"http://127.0.0.1:{server.port}") as asking:
        await asking.fetch("POST", "/a", b"1")
        if streams:
            async with asking.stream("POST", "/b", b"2") as streaming:
                assert await streaming.read() == b"{}"
        else:
            assert (await asking.fetch("POST", "/b", b"2")).body == b"{}"
        assert [head.split()[1] for head in server.heads] == [b"/a", b"/b", b"/b"]
        assert server.connections == 2


async def test_a_request_is_not_sent_again_after_a_byte_of_its_reply() -> None:
    async with upstream(answer_then(b"HTTP/1.1 20")) as server, client(f"http://127.0.0.1:{server.port}") as asking:
        await asking.fetch("POST", "/a", b"1")
        with pytest.raises(Broken):
            await asking.fetch("POST", "/b", b"2")
        assert len(server.heads) == 2


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_request_that_may_be_sent_once_takes_a_new_connection_and_is_not_sent_again(method: str) -> None:
    async with upstream(answer_then(b"")) as server, client(f"http://127.0.0.1:{server.port}") as asking:
        await asking.fetch("POST", "/a", b"1")
        with pytest.raises(Broken):
            await asking.fetch(method, "/b", is_once=True)
        assert len(server.heads) == 2
        assert server.connections == 2
        for _ in range(2):
            await asking.fetch(method, "/c", is_once=True)
        assert server.connections == 4


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_request_over_a_new_connection_is_not_sent_again(method: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
        return False

    async with upstream(hang_up) as server, client(f"http://127.0.0.1:{server.port}") as asking:
        with pytest.raises(Broken):
            await asking.fetch(method, "/")
        assert len(server.heads) == 1


async def test_bytes_that_nobody_asked_for_never_become_a_reply() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
        writer.write(reply(b"right"))
        await writer.drain()
        if len(seen.heads) == 1:
            await pause(0.05)
            writer.write(reply(b"wrong"))
            seen.left.set()
        return True

    async with upstream(answer) as server, client(f"http://127.0.0.1:{server.port}") as asking:
        assert (await asking.fetch("GET", "/")).body == b"right"
        await server.left.wait()
        await pause(0.05)
        assert (await asking.fetch("GET", "/")).body == b"right"
        assert server.connections == 2


async def test_the_connection_of_a_stream_is_kept_if_its_end_comes_soon_after_its_last_part() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nlast\r\n")
        await seen.left.wait()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async with upstream(answer) as server, client(f"http://127.0.0.1:{server.port}") as asking:
        async with asking.stream("POST", "/") as streaming:
            async for part in streaming.parts():
                assert part == b"last"
                break
        server.left.set()
        while asking._endings:  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0)
        async with asking.stream("POST", "/") as streaming:
            assert await streaming.read() == b"last"
        assert server.connections == 1


# limits and codings


async def test_a_compressed_reply_is_decompressed_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def squeeze(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
        writer.write(reply(gzip.compress(b"x" * 300_000), "content-encoding: gzip"))
        return True

    async with upstream(squeeze) as server, client(f"http://127.0.0.1:{server.port}") as asking:
        assert (await asking.fetch("GET", "/")).body == b"x" * 300_000
        assert b"accept-encoding: gzip, deflate\r\n" in server.heads[0].lower()
        async with asking.stream("GET", "/") as streaming:
            assert await streaming.read() == b"x" * 300_000
        assert b"accept-encoding: identity\r\n" in server.heads[1].lower(), "compression holds up the parts of a stream"
        monkeypatch.setattr(http, "LONGEST_REPLY", 200_000)
        with pytest.raises(Broken, match="over 200000 bytes"):
            await asking.fetch("GET", "/")
        async with asking.stream("GET", "/") as streaming:
            with pytest.raises(Broken, match="over 200000 bytes"):
                await streaming.read()


async def test_a_redirect_is_not_followed() -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Upstream) -> bool:
        writer.write(b"HTTP/1.1 307 Elsewhere\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n")
        return True

    async with upstream(redirect) as server, client(f"http://127.0.0.1:{server.port}") as asking:
        assert (await asking.fetch("POST", "/", b"{}")).status == 307
        assert len(server.heads) == 1


# cancel


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("kind", ["whole", "upload", "stream", "begun stream"])
async def test_a_cancel_reaches_the_server_at_once(kind: str, tmp_path: Path, *, secure: bool) -> None:
    answer = answer_begun if kind == "begun stream" else answer_never
    authority = Authority(tmp_path)
    tls = authority.sign("127.0.0.1").serve() if secure else None
    async with (
        upstream(answer, tls=tls) as server,
        client(
            f"{'https' if secure else 'http'}://127.0.0.1:{server.port}", security=Security(ca_file=authority.ca_file)
        ) as asking,
    ):

        async def ask() -> None:
            if kind in ("whole", "upload"):
                await asking.fetch("POST", "/", b"x" * (30_000_000 if kind == "upload" else 1))
            else:
                async with asking.stream("POST", "/", b"x") as streaming:
                    async for _ in streaming.parts():
                        server.came.set()

        task = asyncio.create_task(ask())
        await asyncio.wait_for(server.came.wait(), HANG_S)
        await pause(0.05)
        task.cancel()
        cancelled_at = time.monotonic()
        await asyncio.wait({task})
        await asyncio.wait_for(server.left.wait(), HANG_S)
        assert server.left_at - cancelled_at < CANCEL_S


async def test_a_server_that_does_not_take_connections_is_unreachable_in_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        async with client(f"http://127.0.0.1:{port}", timeouts=Timeouts(connect_s=0.2)) as asking:
            with pytest.raises(Unreachable, match=r"no connection to .* in time"):
                await asking.fetch("GET", "/")
        for filler in fillers:
            filler.close()


async def test_the_record_of_a_call_names_a_bad_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with upstream(answer_ok, tls=authority.sign("127.0.0.1").serve()) as server:
        Path("ripieno.toml").write_text(
            "[ledger]\nurl = 'sqlite:///ledger.db'\n"
            f"[providers.a]\nkind = 'openai'\nbase_url = 'https://127.0.0.1:{server.port}/v1'\n"
            "[workers.a]\nprovider = 'a'\nprice = 'free'\nprivacy = 'local'\n"
        )
        async with open_gateway() as (app, address, asking):
            ask = {"model": "a", "messages": [{"role": "user", "content": "x"}]}
            async with asking.post(f"{address}/v1/chat/completions", json=ask) as response:
                assert response.status == 502
                assert (await response.json())["error"]["code"] == "provider_unreachable"
            runs = app.ledger.runs.of_decision(str(app.ledger.decisions.last()))
            assert "certificate of 127.0.0.1" in str(runs[0].calls[0].error)
            assert "is not accepted" in str(runs[0].calls[0].error)
        assert not server.heads
