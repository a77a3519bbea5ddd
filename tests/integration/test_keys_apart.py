"""Keys are apart: each route, walked with the key that owns what is asked for, another key, no key and the master key.

Every route that the server knows stands in `EXPECTED`: one that is added without saying who may use it fails the test.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientSession
from tests.integration.conftest import Serve, open_app, write_pool

from ripieno.app import Installation
from ripieno.app.feedback import Payer, record_feedback
from ripieno.dashboard.dashboard import PAGES
from ripieno.domain import KeyLimits, Privacy, Verdict
from ripieno.domain.memory import NewItem, Scope
from ripieno.errors import InvalidTask, NotFound
from ripieno.gateway import bind_socket, running
from ripieno.gateway.actions import Actions
from ripieno.gateway.facts import Facts
from ripieno.gateway.gate import Gate
from ripieno.gateway.http import Request
from ripieno.gateway.keyring import Grant, Keyring
from ripieno.gateway.memories import MemoryRoutes
from ripieno.gateway.passing import PATHS
from ripieno.gateway.runs import RunRoutes
from ripieno.gateway.server import Gateway
from ripieno.gateway.visitors import Visitors
from ripieno.testing import Reply, ScriptedServer

MASTER, VIEWER = "the-master-key", "the-viewer-key"
MESSAGES = [{"role": "user", "content": "What is 2 + 2?"}]
CHAT = {"model": "auto", "messages": MESSAGES, "max_tokens": 50}
WHO = ("owner", "other", "none", "master")
Route = tuple[str, str]

ALL = (200, 200, 200, 200)
"""Open to everybody."""
KEYS = (200, 200, 401, 200)
"""For any key, about nothing that another key has."""
OWN = (200, 404, 401, 200)
"""For who it belongs to, and the master key; another key is told what it is told of something that is not there."""
ADMIN = (403, 403, 401, 200)

EXPECTED: dict[Route, tuple[int, int, int, int]] = {
    ("GET", "/"): ALL,
    ("GET", "/healthz"): ALL,
    ("GET", "/readyz"): ALL,
    ("GET", "/metrics"): ADMIN,
    ("POST", "/v1/chat/completions"): KEYS,
    ("POST", "/v1/completions"): KEYS,
    ("POST", "/v1/messages"): KEYS,
    ("POST", "/v1/messages/count_tokens"): KEYS,
    ("POST", "/v1/responses"): KEYS,
    ("POST", "/v1/responses/input_tokens"): KEYS,
    ("POST", "/v1/responses/compact"): KEYS,
    ("GET", "/v1/responses/{response}"): OWN,
    ("DELETE", "/v1/responses/{response}"): OWN,
    ("POST", "/v1/conversations"): KEYS,
    ("GET", "/v1/conversations/{conversation}"): OWN,
    ("POST", "/v1/conversations/{conversation}"): OWN,
    ("DELETE", "/v1/conversations/{conversation}"): OWN,
    ("POST", "/v1/embeddings"): KEYS,
    **{("POST", path): KEYS for path in PATHS},
    ("GET", "/v1/models"): KEYS,
    ("GET", "/v1/models/{model}"): OWN,
    ("POST", "/v1/feedback"): OWN,
    ("GET", "/v1/runs/{run}"): OWN,
    ("POST", "/v1/memory"): (201, 201, 401, 201),
    ("POST", "/v1/memory/recall"): KEYS,
    ("GET", "/v1/memory/status"): KEYS,
    ("DELETE", "/v1/memory/{item}"): (200, 404, 401, 200),
    ("GET", "/admin/keys"): ADMIN,
    ("POST", "/admin/keys"): (403, 403, 401, 201),
    ("DELETE", "/admin/keys/{key}"): ADMIN,
    ("GET", "/admin/approvals"): ADMIN,
    ("POST", "/admin/approvals/{run}"): ADMIN,
    ("GET", "/admin/report"): ADMIN,
}


@dataclass(frozen=True, slots=True)
class World:
    """A gateway with two keys, and what the first of them has."""

    app: Installation
    address: str
    client: ClientSession
    secrets: dict[str, str]
    ids: dict[str, str]
    """Ids of the keys."""

    async def call(
        self, method: str, path: str, who: str, body: object = None, **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        """Send one request as somebody; gives status, body and headers."""
        told = {"content-type": "application/json", "x-request-id": "the-same-for-all"} | headers
        if self.secrets[who]:
            told["authorization"] = f"Bearer {self.secrets[who]}"
        raw = None if body is None else json.dumps(body).encode()
        async with self.client.request(
            method, f"{self.address}{path}", data=raw, headers=told, allow_redirects=False
        ) as response:
            return response.status, await response.text(), {n.lower(): v for n, v in response.headers.items()}

    async def ask(self, who: str, **fields: object) -> tuple[dict[str, Any], dict[str, str]]:
        """Have a task answered."""
        status, said, headers = await self.call("POST", "/v1/chat/completions", who, CHAT | fields)
        assert status == 200, said
        return json.loads(said), headers


@asynccontextmanager
async def open_world(
    monkeypatch: pytest.MonkeyPatch, *servers: ScriptedServer, extra: str = ""
) -> AsyncIterator[World]:
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", MASTER)
    monkeypatch.setenv("RIPIENO_GATEWAY__VIEWER_KEY", VIEWER)
    path = write_pool(*servers, extra=f"[gateway]\nneeds_key = true\n{extra}")
    last = "abcdef"[len(servers) - 1]
    text = path.read_text()
    card = f'[workers.{last}]\nprovider = "{last}"'
    path.write_text(text.replace(card, f"{card}\nneeds_approval = true"))
    async with open_app() as app:
        owner, a = app.ledger.keys.create("owner", KeyLimits())
        other, b = app.ledger.keys.create("other", KeyLimits(workers=("a", last)))
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener) as address, ClientSession() as client:
            secrets = {"owner": a, "other": b, "none": "", "master": MASTER}
            yield World(app, address, client, secrets, {"owner": owner.id, "other": other.id})


def list_routes(app: Installation) -> set[Route]:
    """What the server itself says that it serves, but for pages and forms."""
    keyring = Keyring(app.ledger.keys, admin=MASTER, is_open=False, clock=app.clock)
    visitors = Visitors(key=MASTER, viewer_key=None, is_open=False, clock=app.clock)
    gate = Gate(hosts=(), origins=(), is_loopback=True)
    routes = Gateway(app, gate=gate, keyring=keyring, visitors=visitors).routes
    return {(route.method, route.path) for route in routes if not route.path.startswith("/ui")}


BODIES: dict[Route, object] = {
    ("POST", "/v1/chat/completions"): CHAT,
    ("POST", "/v1/completions"): {"model": "auto", "prompt": "What is 2 + 2?"},
    ("POST", "/v1/messages"): CHAT,
    ("POST", "/v1/messages/count_tokens"): CHAT,
    ("POST", "/v1/responses"): {"model": "auto", "input": "What is 2 + 2?"},
    ("POST", "/v1/responses/compact"): {"model": "auto", "input": "What is 2 + 2?"},
    ("POST", "/v1/responses/input_tokens"): {"model": "auto", "input": "What is 2 + 2?"},
    ("POST", "/v1/conversations"): {"metadata": {}},
    ("POST", "/v1/conversations/{conversation}"): {"metadata": {"topic": "doors"}},
    ("POST", "/v1/embeddings"): {"model": "auto", "input": "x"},
    **{("POST", path): {"model": "a", "input": "x"} for path in PATHS},
    ("POST", "/v1/memory"): {"text": "said by somebody"},
    ("POST", "/v1/memory/recall"): {"question": "what was said?"},
    ("POST", "/admin/keys"): {"name": "more"},
    ("POST", "/admin/approvals/{run}"): {"approve": True, "by": "ada"},
}


async def make_request(world: World, route: Route) -> tuple[str, object]:
    """The path and body of a request that a route takes, about something of the owner's."""
    path, body = route[1].partition("{")[0], BODIES.get(route)
    match route[1]:
        case "/v1/models/{model}":
            return f"{path}b", None
        case "/v1/feedback":
            return path, {"decision": (await world.ask("owner"))[1]["x-ripieno-decision"], "quality": 1.0}
        case "/v1/runs/{run}":
            return path + (await world.ask("owner"))[1]["x-ripieno-decision"], None
        case "/v1/memory/{item}":
            _, said, _ = await world.call("POST", "/v1/memory", "owner", {"text": "the gate is green"})
            return path + json.loads(said)["id"], None
        case "/v1/responses/{response}":
            _, said, _ = await world.call("POST", "/v1/responses", "owner", {"model": "auto", "input": "hello"})
            return path + json.loads(said)["id"], None
        case "/v1/conversations/{conversation}":
            _, said, _ = await world.call("POST", "/v1/conversations", "owner", {})
            return path + json.loads(said)["id"], body
        case "/admin/keys/{key}":
            name = f"to be ended {len(world.app.ledger.keys.all())}"
            return path + world.app.ledger.keys.create(name, KeyLimits())[0].id, None
        case "/admin/approvals/{run}":
            await world.call("POST", "/v1/chat/completions", "owner", CHAT | {"model": "c"})
            return path + world.app.runs.unfinished()[-1].claim.run, body
        case _:
            return path, body


async def test_every_route_says_who_may_use_it_and_holds_that(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_world(monkeypatch, serve(), serve(), serve()) as world:
        assert list_routes(world.app) == set(EXPECTED), "a route says here who may use it"
        for route, statuses in EXPECTED.items():
            for who, wanted in zip(WHO, statuses, strict=True):
                path, body = await make_request(world, route)
                status, said, _ = await world.call(route[0], path, who, body)
                assert status == wanted, (route, who, said)


async def test_pages_and_forms_take_no_virtual_key_and_the_viewer_changes_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(monkeypatch, serve(), serve(), serve()) as world:
        site = {"origin": world.address, "content-type": "application/x-www-form-urlencoded"}
        pages = [f"/ui/{name}" for name in PAGES]
        for who in ("owner", "other", "none"):
            for page in ("/ui", *pages):
                assert (await world.call("GET", page, who))[0] == 401, (page, who)
            for name in Actions(world.app).names:
                assert (await world.call("POST", f"/ui/{name}", who, **site))[0] == 403, (name, who)
        async with world.client.post(
            f"{world.address}/ui/enter", data={"key": world.secrets["owner"]}, headers=site, allow_redirects=False
        ) as refused:
            assert refused.status == 401
        async with world.client.post(
            f"{world.address}/ui/enter", data={"key": VIEWER}, headers=site, allow_redirects=False
        ) as entered:
            assert entered.status == 303
            cookie = entered.headers["set-cookie"].partition(";")[0]
        assert (await world.call("GET", "/ui/live", "none", cookie=cookie))[0] == 200
        for name in Actions(world.app).names:
            assert (await world.call("POST", f"/ui/{name}", "none", cookie=cookie, **site))[0] == 403, name
        for who in WHO[:3]:
            assert (await world.call("GET", "/admin/report", who, cookie=cookie))[0] != 200, "a cookie is for pages"


async def test_another_keys_decision_looks_like_a_missing_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_world(monkeypatch, serve(), serve(), serve()) as world:
        mine = (await world.ask("owner"))[1]["x-ripieno-decision"]
        masters = (await world.ask("master"))[1]["x-ripieno-decision"]
        never = "0" * len(mine)
        await world.call("POST", "/v1/chat/completions", "owner", CHAT | {"model": "c"})
        waits = world.app.runs.unfinished()[-1].claim.run

        async def tell(who: str, name: str) -> list[tuple[int, str]]:
            said = []
            for method, path, body in (
                ("GET", f"/v1/runs/{name}", None),
                ("POST", "/v1/feedback", {"decision": name, "quality": 0.0}),
                ("POST", "/v1/feedback", {"decision": name, "correction": "five"}),
            ):
                status, text, _ = await world.call(method, path, who, body)
                said.append((status, text.replace(f"'{name}'", "'ID'")))
            return said

        unknown = await tell("other", never)
        assert [status for status, _ in unknown] == [404, 404, 404]
        for name in (mine, masters, waits, mine[:12], mine[:1]):
            assert await tell("other", name) == unknown, name
        assert await tell("owner", masters) == await tell("owner", never)
        assert world.app.ledger.count("judged") == 0
        assert [status for status, _ in await tell("owner", mine)] == [200, 200, 200]
        assert [status for status, _ in await tell("master", mine)] == [200, 200, 200]
        assert (await world.call("GET", f"/v1/runs/{waits}", "owner"))[0] == 200
        assert [found.verdict.quality for found in world.app.ledger.runs.verdicts_of(mine)].count(0.0) == 4


async def test_a_cached_answer_belongs_to_one_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve([Reply(text="four")])
    async with open_world(monkeypatch, server, serve(), serve(), extra="[cache]\nanswers = true") as world:
        _, made, _ = await world.call("POST", "/admin/keys", "master", {"name": "like the first"})
        world.secrets["third"] = json.loads(made)["secret"]
        decisions = {}
        for nth, who in enumerate(("owner", "third", "other", "master"), start=1):
            said, headers = await world.ask(who)
            assert "x-ripieno-cache" not in headers, who
            assert len(server.seen) == nth
            decisions[who] = headers["x-ripieno-decision"]
            assert said["ripieno"]["decision"] == decisions[who]
        assert len(set(decisions.values())) == 4
        for who, decision in decisions.items():
            _, headers = await world.ask(who)
            assert (headers["x-ripieno-cache"], headers["x-ripieno-decision"]) == ("hit", decision)
        assert len(server.seen) == 4


async def test_a_key_sees_no_worker_that_it_may_not_use(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    aliases = '[gateway.aliases]\n"second" = "b"\n"first" = "a"'
    async with open_world(monkeypatch, serve(), serve(), serve(), extra=aliases) as world:
        listed = {}
        for who in ("owner", "other"):
            _, said, _ = await world.call("GET", "/v1/models", who)
            listed[who] = {each["id"] for each in json.loads(said)["data"]}
        assert listed["owner"] - listed["other"] == {"b", "second"}
        for name in ("b", "second", "gone"):
            status, said, _ = await world.call("GET", f"/v1/models/{name}", "other")
            assert (status, said.replace(name, "NAME")) == (404, said.replace(name, "NAME"))
        for path, body in (
            ("/v1/chat/completions", CHAT | {"model": "gone"}),
            ("/v1/embeddings", {"model": "gone", "input": "x"}),
            ("/v1/chat/completions", CHAT | {"ripieno": {"budget_usd": 0.0}}),
            ("/v1/chat/completions", CHAT | {"ripieno": {"workflow": "cascade"}}),
        ):
            status, said, _ = await world.call("POST", path, "other", body)
            assert status in (400, 404), said
            assert "b" not in said.replace("`", " ").replace("'", " ").replace(",", " ").replace(":", " ").split(), said


async def test_memory_of_a_key_is_its_own_scope_and_nothing_of_the_installation(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A remote key read what the owner had marked to stay on this machine, as it stood in the scope of all."""
    server = serve([Reply(text="I see")])
    async with open_world(monkeypatch, server, serve(), serve()) as world:
        owners = [
            NewItem(text=f"the safe opens with {nth}{nth}{nth}", scope=Scope(project=project), privacy=Privacy.LOCAL)
            for nth, project in enumerate(("", "web", f"{world.ids['owner']}/web"), start=1)
        ]
        receipts = await world.app.memory.remember(owners)
        question = {"question": "what opens the safe?", "project": "web"}
        for reach in Privacy:
            for who in ("owner", "other"):
                _, said, _ = await world.call("POST", "/v1/memory/recall", who, question | {"reach": reach.value})
                assert "the safe" not in said, (who, reach)
            asks = {"ripieno": {"memory": {"project": "web"}, "privacy": reach.value}}
            await world.ask("other", messages=[{"role": "user", "content": "What opens the safe?"}], **asks)
            assert "the safe opens" not in json.dumps(server.seen[-1].body)
        _, said, _ = await world.call("POST", "/v1/memory/recall", "master", question | {"reach": "local"})
        assert "opens with 111" in said
        gone = f"/v1/memory/{'0' * 32}"
        _, unknown, _ = await world.call("DELETE", gone, "other")
        for receipt in receipts:
            status, said, _ = await world.call("DELETE", f"/v1/memory/{receipt.id}", "other")
            assert (status, said.replace(receipt.id, "0" * 32)) == (404, unknown)
            stolen = {"text": "mine now", "supersedes": receipt.id}
            assert (await world.call("POST", "/v1/memory", "other", stolen))[0] == 404
        assert len(await world.app.memory.get([receipt.id for receipt in receipts])) == 3


async def test_memory_of_a_local_key_stays_local(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_world(monkeypatch, serve(), serve(), serve()) as world:
        _, made, _ = await world.call("POST", "/admin/keys", "master", {"name": "near", "limits": {"privacy": "local"}})
        world.secrets["near"] = json.loads(made)["secret"]
        _, said, _ = await world.call("POST", "/v1/memory", "near", {"text": "the lamp is red", "privacy": "public"})
        (item,) = await world.app.memory.get([json.loads(said)["id"]])
        assert (item.privacy, item.scope.project) == (Privacy.LOCAL, f"{json.loads(made)['id']}/")
        asked = {"question": "the lamp", "reach": "local"}
        assert "the lamp is red" in (await world.call("POST", "/v1/memory/recall", "near", asked))[1]
        assert "the lamp" not in (await world.call("POST", "/v1/memory/recall", "owner", asked))[1]


async def test_a_request_without_a_key_reaches_nothing_of_a_key(serve: Serve) -> None:
    write_pool(serve([Reply(text="four")]), extra="[cache]\nanswers = true")
    async with open_app() as app:
        key, secret = app.ledger.keys.create("owner", KeyLimits())
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener) as address, ClientSession() as client:
            world = World(app, address, client, {"owner": secret, "none": ""}, {"owner": key.id})
            _, headers = await world.ask("owner")
            _, again = await world.ask("none")
            assert "x-ripieno-cache" not in again
            assert again["x-ripieno-decision"] != headers["x-ripieno-decision"]


async def test_a_conversation_of_one_key_does_not_bind_another(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same name of a session, with a tool's answer, which always goes back to the worker that called the tool."""
    async with open_world(monkeypatch, serve(), serve(), serve()) as world:
        await world.ask("owner", model="b", ripieno={"session": "s"})
        back = [*MESSAGES, {"role": "tool", "content": "4", "tool_call_id": "t"}]
        said, _ = await world.ask("owner", messages=back, ripieno={"session": "s"})
        assert said["model"] == "b"
        for who in ("other", "master"):
            said, _ = await world.ask(who, messages=back, ripieno={"session": "s"})
            assert said["model"] == "a"


async def test_a_request_without_a_key_that_is_no_admins_is_apart_from_keys_too(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no key is demanded, a request without one is the installation's own, and reads nothing of a key."""
    async with open_world(monkeypatch, serve(), serve(), serve()) as world:
        mine = (await world.ask("owner"))[1]["x-ripieno-decision"]
        ours = (await world.ask("master"))[1]["x-ripieno-decision"]
        _, said, _ = await world.call("POST", "/v1/memory", "owner", {"text": "the gate is green", "project": "web"})
        item = json.loads(said)["id"]
        runs, memory, anyone = RunRoutes(world.app), MemoryRoutes(world.app), Grant()
        assert (await runs.show(ask_of(anyone, ours))).status == 200
        with pytest.raises(NotFound, match="no decision"):
            await runs.show(ask_of(anyone, mine))
        with pytest.raises(NotFound, match="no decision"):
            await record_feedback(world.app, mine, Verdict(verifier="user", quality=0.0), payer=Payer(key=None))
        with pytest.raises(NotFound, match="of this key"):
            await memory.forget(ask_of(anyone, item))
        scope = {"question": "the gate", "project": f"{world.ids['owner']}/web"}
        with pytest.raises(InvalidTask, match="belongs to a key"):
            await memory.recall(ask_of(anyone, body=scope))
        with pytest.raises(InvalidTask, match="belongs to a key"):
            await memory.remember(ask_of(anyone, body={"text": "x", "project": scope["project"]}))
        (own,) = await world.app.memory.remember([NewItem(text="the lamp is red", scope=Scope(project="web"))])
        assert (await memory.forget(ask_of(anyone, own.id))).status == 200


def ask_of(grant: Grant, parameter: str = "", body: object = None) -> Facts:
    request = Request(method="POST", path="/", query="", headers={}, body=json.dumps(body).encode())
    return Facts(request, grant=grant, parameter=parameter)
