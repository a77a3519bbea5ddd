"""The gateway as an ASGI app: its lifespan, mounted in another app, and under servers of others."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession
from tests.conftest import HANG_S, pause
from tests.integration.conftest import JSON, Serve, write_pool

from ripieno.asgi import App
from ripieno.errors import ConfigError
from ripieno.gateway.asgi import HttpApp, Message
from ripieno.gateway.http import Request, Response, Stream
from ripieno.testing import Reply

ASK = json.dumps({"model": "a", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}).encode()
KEY = "a-long-master-key-of-the-tests-0123456789"


async def request(
    app: App | HttpApp,
    path: str = "/healthz",
    *,
    body: bytes = b"",
    server: tuple[str, int | None] | None = ("127.0.0.1", 80),
    root_path: str = "",
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> tuple[int, dict[str, str], bytes]:
    """Send one request as an ASGI server does; gives status, headers and body."""
    sent: list[Message] = []
    incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope: MutableMapping[str, object] = {
        "type": "http", "method": "POST" if body else "GET", "path": path, "root_path": root_path, "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers],
        "server": server, "client": ("127.0.0.1", 1),
    }  # fmt: skip
    if body:
        scope["headers"] += [(b"content-length", b"%d" % len(body))]  # type: ignore[operator]  # the list above
    await app(scope, receive, send)
    start, *rest = sent
    pairs: list[tuple[bytes, bytes]] = start["headers"]  # type: ignore[assignment]  # of the start
    content = b"".join(part.get("body", b"") for part in rest)  # type: ignore[misc]  # bytes
    return int(str(start["status"])), {name.decode(): value.decode() for name, value in pairs}, content


@asynccontextmanager
async def live(app: App) -> AsyncIterator[list[Message]]:
    """Run the lifespan of an app while the block runs."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    sent: list[Message] = []
    changed = asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(message)
        changed.set()

    task = asyncio.create_task(app({"type": "lifespan"}, incoming.get, send))
    await incoming.put({"type": "lifespan.startup"})
    await asyncio.wait_for(changed.wait(), HANG_S)
    yield sent
    await incoming.put({"type": "lifespan.shutdown"})
    await asyncio.wait_for(task, HANG_S)


async def test_the_lifespan_opens_and_closes_the_gateway(serve: Serve) -> None:
    write_pool(serve())
    app = App()
    assert (await request(app))[0] == 503, "not before"
    async with live(app) as sent:
        assert [message["type"] for message in sent] == ["lifespan.startup.complete"]
        status, headers, body = await request(app, "/v1/chat/completions", body=ASK)
        assert (status, headers["x-ripieno-worker"]) == (200, "a")
        assert headers["x-content-type-options"] == "nosniff"
        assert json.loads(body)["choices"][0]["message"]["content"] == "ok"
    assert sent[-1]["type"] == "lifespan.shutdown.complete"
    assert (await request(app))[0] == 503, "not after"


async def test_a_fault_of_the_settings_fails_the_start_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.toml").write_text("[gateway]\nprot = 1\n")
    monkeypatch.setenv("RIPIENO_CONFIG", "other.toml")
    async with live(App()) as sent:
        assert sent[0]["type"] == "lifespan.startup.failed"
        assert "other.toml, line 2" in str(sent[0]["message"])
        assert "did you mean 'port'?" in str(sent[0]["message"])


async def test_a_mounted_app_answers_below_its_root_path(serve: Serve) -> None:
    """Frameworks state the whole path with the root path, or the rest of it."""
    write_pool(serve())
    async with App().opened() as app:
        for path in ("/llm/v1/models", "/v1/models"):
            status, _, body = await request(app, path, root_path="/llm")
            assert status == 200
            assert "a" in [model["id"] for model in json.loads(body)["data"]]
        assert (await request(app, "/llm", root_path="/llm"))[0] == 200
        assert (await request(app, "/llmv1/models", root_path="/llm"))[0] == 404
        with pytest.raises(ConfigError, match="open already"):
            async with app.opened():
                pass


async def test_without_a_key_only_this_machine_is_served(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pool(serve())
    async with App().opened() as app:
        for server, expected in (
            (("127.0.0.1", 80), 200), (("::1", 80), 200), (("/run/ripieno.sock", None), 200),
            (("192.0.2.7", 80), 403), (("router.example", 80), 403), (None, 403),
        ):  # fmt: skip
            status, headers, body = await request(app, server=server)
            assert status == expected, server
            assert headers["x-content-type-options"] == "nosniff"
            assert (b"RIPIENO_GATEWAY__API_KEY" in body) == (expected == 403)
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", KEY)
    async with App().opened() as app:
        ask = {"path": "/v1/models", "server": ("192.0.2.7", 80)}
        assert (await request(app, **ask))[0] == 401  # type: ignore[arg-type]  # keywords of it
        allowed = ((b"authorization", f"Bearer {KEY}".encode()),)
        assert (await request(app, **ask, headers=allowed))[0] == 200  # type: ignore[arg-type]  # keywords of it
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", "short")
    with pytest.raises(ConfigError, match="less than"):
        async with App().opened():
            pass


async def test_repeated_and_contradictory_headers_are_refused_under_any_server() -> None:
    async def answer(asked: Request) -> Response | Stream:
        raise AssertionError

    app = HttpApp(answer, lambda status, said, headers: Response(said.encode(), status=status))
    for extra in (
        ((b"Host", b"other"),),
        ((b"authorization", b"a"), (b"Authorization", b"b")),
        ((b"content-length", b"1"), (b"transfer-encoding", b"chunked")),
        ((b"content-length", b"+1"),),
    ):
        assert (await request(app, headers=extra))[0] == 400, extra
    assert (await request(app, headers=((b"content-length", b"9" * 30),)))[0] == 413


# under a server of others


@contextmanager
def uvicorn(target: str, *options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run an app under uvicorn's own command; gives its address once it has started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", target, "--port", "0", *options],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(
            [str(Path.cwd()), *sys.path])},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"running on (http://[\d.:]+)", line):
                break
        else:
            raise AssertionError(said)
        yield found.group(1), process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("parser", ["httptools", "h11"])
async def test_uvicorn_runs_the_app_streams_and_cancels(serve: Serve, parser: str) -> None:
    good = serve([Reply(text="four words are enough"), Reply(hangs=True)])
    write_pool(good)
    with uvicorn("ripieno.asgi:app", "--http", parser) as (address, process):
        async with ClientSession(headers=JSON) as client:
            async with client.get(f"{address}/readyz") as response:
                assert response.status == 200
            body = json.dumps(json.loads(ASK) | {"stream": True})
            async with client.post(f"{address}/v1/chat/completions", data=body) as response:
                text = await response.text()
                assert response.status == 200
                assert response.headers["x-ripieno-worker"] == "a"
            assert text.endswith("data: [DONE]\n\n")
            asking = asyncio.create_task(client.post(f"{address}/v1/chat/completions", data=body))
            assert await asyncio.to_thread(good.came.wait, HANG_S)
            while len(good.seen) < 2:  # what is waited for sets no event
                await pause(0.01)
            asking.cancel()
            assert await asyncio.to_thread(good.left.wait, HANG_S), "who leaves cancels the call upstream"
        process.send_signal(signal.SIGTERM)
        assert "Application shutdown complete" in process.communicate(timeout=HANG_S)[1]


async def test_a_framework_mounts_the_app(serve: Serve) -> None:
    pytest.importorskip("starlette")
    write_pool(serve())
    Path("outer.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from starlette.applications import Starlette\nfrom starlette.routing import Mount\n"
        "from ripieno.asgi import app as ripieno\n\n"
        "@asynccontextmanager\nasync def lifespan(outer):\n    async with ripieno.opened():\n        yield\n\n"
        "app = Starlette(routes=[Mount('/llm', ripieno)], lifespan=lifespan)\n"
    )
    with uvicorn("outer:app") as (address, _):
        async with ClientSession(headers=JSON) as client:
            async with client.get(f"{address}/llm/readyz") as response:
                assert response.status == 200
            async with client.post(f"{address}/llm/v1/chat/completions", data=ASK) as response:
                assert response.status == 200
            async with client.get(f"{address}/v1/models") as response:
                assert response.status == 404
                assert not re.search("ripieno", await response.text())
