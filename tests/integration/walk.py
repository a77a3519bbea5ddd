"""A walk: one request for every route of the gateway, and for every form of an answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession
from tests.integration.conftest import ADMIN, JSON, Serve, write_pool

from ripieno.app import Installation
from ripieno.domain import KeyLimits
from ripieno.gateway.gate import SAFE_HEADERS
from ripieno.gateway.passing import PATHS
from ripieno.testing import Reply

MESSAGES = [{"role": "user", "content": "What is 2 + 2?"}]
CHAT = {"model": "auto", "messages": MESSAGES, "max_tokens": 50}
ALWAYS = {*SAFE_HEADERS, "x-request-id", "request-id"}
"""Headers of every answer."""
CHOSEN = {"x-ripieno-decision", "x-ripieno-workflow"}
"""Of every answer to a request that was decided."""
SPENT = {"x-ripieno-cost-usd", "x-ripieno-attempts"}
"""Of those whose end is known when the headers go out: all but a stream's."""
ANSWERED = {"x-ripieno-worker", "x-ripieno-why"}


@dataclass(frozen=True)
class Ask:
    """One request, and what its answer must be."""

    route: str
    """Label of the route."""
    path: str
    status: int
    body: object = None
    has: frozenset[str] = frozenset()
    """Headers beside those of every answer."""


PASSED = {"x-ripieno-worker", "x-ripieno-cost-usd"}


def ask(route: str, status: int = 200, body: object = None, *, path: str = "", has: set[str] | None = None) -> Ask:
    return Ask(route, path or route.partition(" ")[2], status, body, frozenset(has or ()))


async def list_asks(app: Installation, client: ClientSession, address: str) -> list[Ask]:
    """One request for every route, and for every form of an answer."""
    key, _ = app.ledger.keys.create("to be ended", KeyLimits())
    decision = (await send(client, address, ask("POST /v1/chat/completions", body=CHAT))).headers["x-ripieno-decision"]
    item = (await send(client, address, ask("POST /v1/memory", 201, {"text": "red"}))).said["id"]
    await send(client, address, ask("POST /v1/chat/completions", 409, CHAT | {"model": "c"}))
    waits = app.runs.unfinished()[-1].claim.run
    reply = {"model": "auto", "input": "x"}
    kept_response = (await send(client, address, ask("POST /v1/responses", body=reply))).said["id"]
    talk = (await send(client, address, ask("POST /v1/conversations", body={}))).said["id"]
    whole, failed = CHOSEN | ANSWERED | SPENT, CHOSEN | SPENT | {"x-should-retry"}
    kept, chat = CHAT | {"ripieno": {"cache": True}}, "POST /v1/chat/completions"
    return [
        ask("GET /"),
        ask("GET /healthz"),
        ask("GET /readyz"),
        ask("GET /metrics"),
        ask(chat, body=CHAT, has=whole),
        ask(chat, body=kept, has=whole),
        ask(chat, body=kept, has=whole | {"x-ripieno-cache"}),
        ask(chat, body=CHAT | {"stream": True}, has=CHOSEN | ANSWERED),
        ask(chat, 502, CHAT | {"model": "b"}, has=failed),
        ask(chat, 502, CHAT | {"model": "b", "stream": True}, has=failed),
        ask(chat, 409, CHAT | {"model": "c"}, has=failed),
        ask(chat, 404, CHAT | {"model": "gone"}, has={"x-should-retry"}),
        ask(chat, 400, {"model": "auto"}, has={"x-should-retry"}),
        ask("POST /v1/messages", body=CHAT, has=whole),
        ask("POST /v1/messages", body=CHAT | {"stream": True}, has=CHOSEN | ANSWERED),
        ask("POST /v1/messages", 400, {"model": "auto"}, has={"x-should-retry"}),
        ask("POST /v1/responses", body={"model": "auto", "input": "x"}, has=whole),
        ask("POST /v1/responses", body={"model": "auto", "input": "x", "stream": True}, has=CHOSEN | ANSWERED),
        ask("POST /v1/messages/count_tokens", body=CHAT),
        ask("POST /v1/completions", body={"model": "auto", "prompt": "x"}, has=whole),
        ask("POST /v1/responses/input_tokens", body=reply),
        ask("POST /v1/responses/compact", body=reply, has=whole),
        ask("GET /v1/responses/{response}", path=f"/v1/responses/{kept_response}"),
        ask("GET /v1/responses/{response}", 404, path="/v1/responses/gone", has={"x-should-retry"}),
        ask("DELETE /v1/responses/{response}", path=f"/v1/responses/{kept_response}"),
        ask("POST /v1/conversations", body={}),
        ask("GET /v1/conversations/{conversation}", path=f"/v1/conversations/{talk}"),
        ask("POST /v1/conversations/{conversation}", body={"metadata": {}}, path=f"/v1/conversations/{talk}"),
        ask("DELETE /v1/conversations/{conversation}", path=f"/v1/conversations/{talk}"),
        *(ask(f"POST {path}", body={"model": "a", "input": "x"}, has=PASSED) for path in PATHS),
        ask("POST /v1/embeddings", body={"model": "auto", "input": "x"}),
        ask("POST /v1/embeddings", 404, {"model": "gone", "input": "x"}, has={"x-should-retry"}),
        ask("GET /v1/models"),
        ask("GET /v1/models/{model}", path="/v1/models/auto"),
        ask("GET /v1/models/{model}", 404, path="/v1/models/gone", has={"x-should-retry"}),
        ask("POST /v1/feedback", body={"decision": decision, "quality": 1.0}),
        ask("GET /v1/runs/{run}", path=f"/v1/runs/{decision}"),
        ask("POST /v1/memory", 201, {"text": "the gate is green"}),
        ask("POST /v1/memory/recall", body={"question": "the gate"}),
        ask("GET /v1/memory/status"),
        ask("DELETE /v1/memory/{item}", path=f"/v1/memory/{item}"),
        ask("GET /admin/keys"),
        ask("POST /admin/keys", 201, {"name": "more"}),
        ask("DELETE /admin/keys/{key}", path=f"/admin/keys/{key.id}"),
        ask("GET /admin/approvals"),
        ask("POST /admin/approvals/{run}", body={"approve": True, "by": "ada"}, path=f"/admin/approvals/{waits}"),
        ask("GET /admin/report"),
        ask("GET /ui"),
        ask("GET /ui/{page}", path="/ui/live"),
        ask("GET /ui/{page}", path="/ui/assets/style.css"),
        ask("GET /ui/{page}", 404, path="/ui/nothing", has={"x-should-retry"}),
        ask("POST /ui/{form}", 415, {"key": "x"}, path="/ui/enter", has={"x-should-retry"}),
        ask("unknown", 404, path="/nothing", has={"x-should-retry"}),
        ask("unknown", 405, path="/v1/chat/completions", has={"x-should-retry", "allow"}),
        ask("unknown", 405, path=f"/v1/memory/{item}", has={"x-should-retry", "allow"}),
    ]


@dataclass(frozen=True)
class Said:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def said(self) -> Any:
        return json.loads(self.text)

    @property
    def id(self) -> str:
        return self.headers["x-request-id"]


async def send(client: ClientSession, address: str, asked: Ask, **headers: str) -> Said:
    method = asked.route.partition(" ")[0] if asked.route != "unknown" else "GET"
    body = None if asked.body is None else json.dumps(asked.body).encode()
    kind = JSON if method == "POST" else {}
    url = f"{address}{asked.path}"
    async with client.request(method, url, data=body, headers=ADMIN | kind | headers) as answer:
        told = [name.lower() for name in answer.headers]
        assert len(told) == len(set(told)), "no header stands twice"
        return Said(answer.status, {n.lower(): v for n, v in answer.headers.items()}, await answer.text())


def write_workers(serve: Serve) -> None:
    """Write a pool of one that answers, one that fails, and one that waits for a human."""
    path = write_pool(serve([Reply(text="four four")]), serve([Reply(status=500)]), serve())
    card = '[workers.c]\nprovider = "c"'
    path.write_text(path.read_text().replace(card, f"{card}\nneeds_approval = true"))
