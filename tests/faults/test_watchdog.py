"""Nothing that a caller writes keeps other callers waiting: every route and page gets long, nested and hostile text."""

import asyncio
import base64
import io
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, CookieJar
from tests.conftest import UNTRACED, pause
from tests.faults.conftest import Served, ServeIn
from tests.faults.test_gateway import write_settings

from ripieno.testing import Reply, ScriptedServer

LONGEST_GAP_S = 0.25
"""That an answer to a cheap request may take while the gateway works on hostile ones."""
TICKS = os.sysconf("SC_CLK_TCK")
MB = 1_000_000
HANG_GUARD_S = 120

TEXTS: dict[str, str] = {
    "one letter": "a" * MB,
    "spaces": " " * MB,
    "lines": "\n" * MB,
    "digits": "1" * MB,
    "groups of digits": "111," * (MB // 4) + "x",
    "words": "word " * (MB // 5),
    "addresses": "a@b." * (MB // 4),
    "fences": "```\n" * (MB // 4),
    "backticks": "`" * MB,
    "brackets": "[" * MB,
    "quotes": '"' * MB,
    "slashes": "/" * MB,
    "zero width": "\u200b" * (MB // 3),
    "combining": "e\u0301" * (MB // 3),
    "joined emoji": "👩‍👩‍👧" * (MB // 18),
    "right to left": "\u202e\u05d0" * (MB // 4),
    "base64": base64.b64encode(bytes(range(256)) * 3000).decode(),
    "markers": "answer: " * (MB // 8),
    "identifiers": "A1-B2_c3.d4/" * (MB // 12),
    "urls": "http://a.b/c?d=e&f " * (MB // 19),
    "sentences": "Never do that. Use X instead of Y on 2024-01-01 for $1,000. " * (MB // 60),
    "nulls": "\0" * (MB // 6),
}


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


def tool(name: str, **schema: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}, **schema}
    return {"type": "function", "function": {"name": name, "description": "d " * 50, "parameters": parameters}}


def nest(depth: int) -> bytes:
    return b'{"model": "auto", "messages": ' + b"[" * depth + b"]" * depth + b"}"


def ladder(steps: int) -> dict[str, Any]:
    """A schema of few parts that comes to two to the power of its steps."""
    definitions: dict[str, Any] = {f"s{n}": {"anyOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(steps)}
    return {"$ref": "#/$defs/s0", "$defs": definitions | {f"s{steps}": {"type": "string"}}}


SCHEMAS: tuple[dict[str, Any], ...] = (
    ladder(40),
    {"$ref": "#"},
    {"$ref": "http://127.0.0.1:1/x"},
    {"enum": ["x"] * 100_000},
    {"pattern": "(a+)+$"},
    {"patternProperties": {"(x+x+)+y": {}}},
)


def make_requests() -> Iterator[tuple[str, str, bytes]]:
    """What is sent: a name, a path, and a body."""
    for name, text in TEXTS.items():
        yield f"chat {name}", "/v1/chat/completions", json.dumps(chat(text)).encode()
    for name in ("words", "zero width", "brackets", "sentences"):
        text = TEXTS[name]
        yield f"messages {name}", "/v1/messages", json.dumps(chat(text, max_tokens=5)).encode()
        yield f"count {name}", "/v1/messages/count_tokens", json.dumps(chat(text)).encode()
        yield f"responses {name}", "/v1/responses", json.dumps({"model": "auto", "input": text}).encode()
        yield f"embeddings {name}", "/v1/embeddings", json.dumps({"model": "auto", "input": [text] * 2}).encode()
        yield f"remember {name}", "/v1/memory", json.dumps({"text": text}).encode()
        yield f"recall {name}", "/v1/memory/recall", json.dumps({"question": text}).encode()
        yield f"feedback {name}", "/v1/feedback", json.dumps({"decision": "x", "detail": text}).encode()
    for path in (
        "/v1/chat/completions",
        "/v1/messages",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/feedback",
        "/v1/memory",
    ):
        yield f"nested {path}", path, nest(100_000)
        yield f"nested by objects {path}", path, b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        yield f"half {path}", path, b'{"model": "auto", "messages": [' + b'{"role": "user"},' * 20_000
    many = [{"role": "user" if n % 2 else "assistant", "content": f"m{n}"} for n in range(20_001)]
    yield "many messages", "/v1/chat/completions", json.dumps({"model": "auto", "messages": many}).encode()
    yield (
        "many parts",
        "/v1/chat/completions",
        json.dumps(
            {"model": "auto", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 20_000}]}
        ).encode(),
    )
    yield (
        "many tools",
        "/v1/chat/completions",
        json.dumps(chat("x", tools=[tool(f"t{n}") for n in range(5_000)])).encode(),
    )
    wide = tool("t", properties={f"p{n}": {"type": "string"} for n in range(20_000)})
    yield "a wide tool", "/v1/chat/completions", json.dumps(chat("x", tools=[wide])).encode()
    for kind in ("k" * 300, "k " * 150, "\u200b" * 300, "k" * 100, "<" * 90, "k\n" * 40):
        yield "kind", "/v1/chat/completions", json.dumps(chat("x", ripieno={"task_kind": kind})).encode()
    for field in ("session", "preset", "workflow", "privacy"):
        yield field, "/v1/chat/completions", json.dumps(chat("x", ripieno={field: "s" * MB})).encode()
    yield "model", "/v1/chat/completions", json.dumps(chat("x") | {"model": "m" * MB}).encode()
    yield "metadata", "/v1/chat/completions", json.dumps(chat("x", metadata={"user_id": "u" * MB})).encode()
    yield "workers", "/v1/chat/completions", json.dumps(chat("x", ripieno={"workers": ["w"] * 100_000})).encode()
    for pattern in ("(a+)+$", "(a|aa)+b", "((a*)*)*b", r"(a)\1", "a{1000}{1000}", "(" * 1000, "a" * 100_000):
        check = {"kind": "pattern", "pattern": pattern}
        body = chat("a" * 50_000, ripieno={"check": check, "workflow": "verified"})
        yield "pattern", "/v1/chat/completions", json.dumps(body).encode()
    for schema in SCHEMAS:
        wrong = {"kind": "json_schema", "schema": schema}
        body = chat("x", ripieno={"check": wrong, "workflow": "verified"})
        yield "schema", "/v1/chat/completions", json.dumps(body).encode()
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        yield "wanted schema", "/v1/chat/completions", json.dumps(chat("x", response_format=wanted)).encode()


PAGES = (
    "/ui", "/ui/live", "/ui/pool", "/ui/quality", "/ui/reports", "/ui/memory", "/ui/policies", "/ui/approvals",
    "/ui/playground", "/ui/decision/last", "/metrics", "/v1/models", "/admin/report", "/admin/approvals",
    "/ui/reports?" + "a=b&" * 10_000, "/ui/" + "x/" * 10_000, "/v1/models/" + "m" * 30_000, "/v1/runs/" + "r" * 30_000,
    "/ui/decision/" + "d" * 30_000, "/ui/decision/last?dial=" + "9" * 30_000, "/ui/memory?q=" + "%E2%80%8B" * 3_000,
)  # fmt: skip


class Watch:
    """Asks for something cheap all the time, and keeps the longest that an answer took.

    A loaded machine makes everything late, so what counts is the lesser of two clocks: the wall's, and the processor
    time that the gateway spent between the question and its answer. A loop that is blocked lets both pass.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self.gaps: list[tuple[float, str]] = []
        self.doing = ""

    async def run(self, client: ClientSession) -> None:
        while True:
            doing, began, spent = self.doing, time.monotonic(), self._read_spent()
            async with client.get(f"{self._served.address}/healthz") as answer:
                assert answer.status == 200
                await answer.read()
            gap = min(time.monotonic() - began, self._read_spent() - spent)
            self.gaps.append((gap, f"{doing} / {self.doing}"))
            await pause(0.01)

    def _read_spent(self) -> float:
        """Processor time of the gateway's process, in seconds; its children have their own."""
        fields = Path(f"/proc/{self._served.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@asynccontextmanager
async def watched(served: Served) -> AsyncIterator[tuple[ClientSession, Watch]]:
    timeout, jar = ClientTimeout(total=HANG_GUARD_S), CookieJar(unsafe=True)  # cookies of a bare address
    async with ClientSession(timeout=timeout, cookie_jar=jar) as client, ClientSession() as other:
        watch = Watch(served)
        task = asyncio.create_task(watch.run(other))
        try:
            yield client, watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def served(serve_in: ServeIn, tmp_path: Path) -> Iterator[Served]:
    with ScriptedServer([Reply(text="[1, 2]")]) as good:
        boundary = ["[route]", 'sensitive = "local"']
        write_settings(tmp_path, good, good, gateway=[f'api_key = "{KEY}"', *boundary])
        path = tmp_path / "ripieno.toml"
        path.write_text(path.read_text().replace("max_concurrency = 64", 'max_concurrency = 64\nprivacy = "local"'))
        yield serve_in(tmp_path, environment=UNTRACED)


async def read_reports(client: ClientSession, served: Served) -> str:
    """The page of reports once the traffic has been read, with its chart of kinds."""
    while True:
        async with client.get(f"{served.address}/ui/reports", headers=HEADERS) as answer:
            page = await answer.text()
        if "<svg" in page:
            return page
        assert answer.status == 200
        await pause(0.2)


KEY = "master-key-of-the-test"
HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


async def test_no_text_of_a_caller_keeps_another_waiting(served: Served) -> None:
    statuses: dict[str, list[int]] = {}
    async with watched(served) as (client, watch):
        for name, path, body in [
            ("warm", "/v1/chat/completions", json.dumps(chat("hello")).encode()),
            *make_requests(),
        ]:
            watch.doing = name
            try:
                async with client.post(f"{served.address}{path}", data=io.BytesIO(body), headers=HEADERS) as answer:
                    await answer.read()
                    statuses.setdefault(name, []).append(answer.status)
            except TimeoutError:
                pytest.fail(f"{name} was not answered; {max(watch.gaps, default=None)}")
            except ClientError:
                continue  # a connection that is closed on a body that is no request
            if name == "warm":
                watch.gaps.clear()  # what is loaded once, for the first request of all
        entered = await client.post(
            f"{served.address}/ui/enter",
            data={"key": KEY},
            headers={"origin": served.address, "sec-fetch-site": "same-origin"},
        )
        assert entered.status == 200
        watch.doing = "reports"
        await read_reports(client, served)
        for page in PAGES:
            watch.doing = page[:30]
            async with client.get(f"{served.address}{page}", headers=HEADERS) as answer:
                await answer.read()
    slow = sorted((gap for gap in watch.gaps if gap[0] > LONGEST_GAP_S), reverse=True)
    assert not slow, slow[:20]
    assert len(watch.gaps) > 100
    assert not {name: found for name, found in statuses.items() if max(found) >= 500}
    assert {found[0] for name, found in statuses.items() if name.startswith("chat ")} == {200}
    assert statuses["kind"] == [400, 400, 400, 200, 200, 200]
