"""Calls that a request causes beside its own workers: they obey its worker list, its key and its budget."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientSession
from tests.integration.conftest import ADMIN, Serve, open_app, open_gateway, write_pool

from ripieno.app import Installation
from ripieno.app.remembering import extract_facts
from ripieno.domain import KeyLimits
from ripieno.domain.memory import NewItem, Scope
from ripieno.memory.compact import END
from ripieno.testing import ReceivedRequest, Reply, ScriptedServer

CHAT = "Let me look at this for a while, and think about what we could do with the old orders of the shop. " * 6
PROSE = (
    "They looked at the old orders of the shop for a while, and thought about what could be done with them; nothing "
    f"about the orders was decided yet.\n{END}"
)
DECISION = "Decision: the shop will use Postgres."
COMPACTS = "[memory]\ncompact_words = 300\ncompact_worker = '{}'\n"


def answer_with(prose: str) -> Callable[[ReceivedRequest], Reply]:
    return lambda seen: Reply(text=prose if "You shorten" in json.dumps(seen.body) else "fine")


def converse(**fields: object) -> dict[str, Any]:
    talk = [{"role": ("user", "assistant")[nth % 2], "content": f"{DECISION} {CHAT} {nth}"} for nth in range(13)]
    return {"model": "auto", "messages": talk} | fields


def count_summaries(server: ScriptedServer) -> int:
    return sum("You shorten" in json.dumps(seen.body) for seen in server.seen)


async def make_key(client: ClientSession, address: str, **limits: object) -> dict[str, str]:
    async with client.post(f"{address}/admin/keys", json={"name": "one", "limits": limits}, headers=ADMIN) as made:
        return {"authorization": f"Bearer {(await made.json())['secret']}"}


async def ask(
    client: ClientSession, address: str, body: dict[str, Any], *, headers: dict[str, str] | None = None
) -> tuple[int, Any, Any]:
    async with client.post(f"{address}/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, response.headers, await response.json()


@pytest.mark.parametrize("worker", ["a", "auto"])
@pytest.mark.parametrize("restricts", ["key", "request", "model"])
async def test_a_summary_is_written_only_by_a_worker_that_key_and_request_allow(
    serve: Serve, worker: str, restricts: str
) -> None:
    a, b = serve(answer_with(PROSE)), serve(answer_with(PROSE))
    write_pool(a, b, extra=COMPACTS.format(worker))
    async with open_gateway() as (_, address, client):
        headers = await make_key(client, address, **({"workers": ["b"]} if restricts == "key" else {}))
        body = converse(**({"ripieno": {"workers": ["b"]}} if restricts == "request" else {}))
        if restricts == "model":
            body["model"] = "b"
        status, _, said = await ask(client, address, body, headers=headers)
        assert status == 200, said
    assert not a.seen, "the conversation stays with the allowed worker"
    assert count_summaries(b) == (worker == "auto")
    shown = json.dumps(b.seen[-1].body["messages"])
    assert DECISION in shown
    assert len(b.seen[-1].body["messages"]) < 13, "rules compact it all the same"  # type: ignore[arg-type]  # a list


@pytest.mark.parametrize("conductor", ["a", "b"])
async def test_a_plan_is_written_only_by_a_worker_that_the_request_allows(serve: Serve, conductor: str) -> None:
    a, b, c = (serve([Reply(text="fine")]) for _ in range(3))
    write_pool(a, b, c, extra=f"[conductor]\nkind = 'prompted'\nworker = '{conductor}'\n")
    async with open_gateway() as (_, address, client):
        body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Plan it."}]}
        fields = {"ripieno": {"workers": ["b", "c"], "workflow": "plan"}}
        status, _, said = await ask(client, address, body | fields)
        assert status == 200, said
    assert not a.seen
    was_asked = any("plan how workers" in json.dumps(seen.body) for seen in b.seen)
    assert was_asked == (conductor == "b")


async def remember_for_key(app: Installation, **limits: Any) -> str:
    key, _ = app.ledger.keys.create("one", KeyLimits(**limits))
    said = NewItem(text="My sister Eva lives in Oslo.", author="ben", scope=Scope(project=f"{key.id}/web"))
    await app.memory.remember([said])
    return key.id


@pytest.mark.parametrize(
    ("worker", "limits", "seen"),
    [
        ("a", {"workers": ("b",)}, (0, 0)),
        ("auto", {"workers": ("b",)}, (0, 1)),
        ("a", {"workers": ("a",)}, (1, 0)),
        ("a", {"usd_per_day": 1e-8}, (0, 0)),
        ("a", {"usd_per_month": 10.0, "usd_per_day": 1.0}, (1, 0)),
    ],
)
async def test_facts_of_a_key_are_extracted_within_its_limits_and_at_its_cost(
    serve: Serve, worker: str, limits: dict[str, Any], seen: tuple[int, int]
) -> None:
    a, b = serve([Reply(text="[]")]), serve([Reply(text="[]")])
    write_pool(a, b)
    async with open_app() as app:
        key = await remember_for_key(app, **limits)
        done = await extract_facts(app, worker=worker, most=100)
        assert done is not None
        assert (len(a.seen), len(b.seen)) == seen
        assert (done.turns, done.skipped) == (1, 1 - sum(seen))
    async with open_app() as app:
        spent = [run.entry.run.key for run in app.ledger.read(kinds=("executed",))]  # type: ignore[union-attr]  # runs
        assert spent == [key] * sum(seen)


async def test_facts_of_a_revoked_key_are_not_extracted(serve: Serve) -> None:
    a = serve([Reply(text="[]")])
    write_pool(a)
    async with open_app() as app:
        app.ledger.keys.revoke(await remember_for_key(app))
        done = await extract_facts(app, worker="a", most=100)
        assert done is not None
        assert (done.skipped, a.seen) == (1, [])


async def test_a_summary_is_part_of_what_the_request_costs(serve: Serve) -> None:
    a, b = serve(answer_with(PROSE)), serve(answer_with(PROSE))
    write_pool(a, b, extra=COMPACTS.format("b"))
    async with open_gateway() as (_, address, client):
        status, headers, said = await ask(client, address, converse())
        assert status == 200
        first = float(headers["x-ripieno-cost-usd"])
        assert first == pytest.approx(0.003), "an answer of a, and a summary of b"
        assert headers["x-ripieno-attempts"] == "2"
        assert (said["ripieno"]["cost_usd"], said["ripieno"]["attempts"]) == (pytest.approx(first), 2)
        _, headers, _ = await ask(client, address, converse())
        assert float(headers["x-ripieno-cost-usd"]) == pytest.approx(0.001), "the summary is kept"


@pytest.mark.parametrize(("budget", "status"), [(1e-8, 400), (0.0015, 200), (0.0035, 200), (0.0045, 200)])
async def test_the_budget_of_a_request_holds_for_its_summary(serve: Serve, budget: float, status: int) -> None:
    a, b = serve(answer_with(PROSE)), serve(answer_with(PROSE))
    write_pool(a, b, extra=COMPACTS.format("b"))
    async with open_gateway() as (_, address, client):
        found, headers, said = await ask(client, address, converse(ripieno={"budget_usd": budget}))
        assert found == status, said
        assert count_summaries(b) == (budget > 0.004), "a summary takes at most half"
        assert len(a.seen) + len(b.seen) == (found == 200) + count_summaries(b)
        if found == 200:
            assert float(headers["x-ripieno-cost-usd"]) <= budget


@pytest.mark.parametrize("fields", [{"ripieno": {"workflow": "verified", "workers": ["a"]}}, {"tools": [{}] * 2}])
async def test_a_refused_request_has_paid_for_no_summary(serve: Serve, fields: dict[str, object]) -> None:
    a = serve(answer_with(PROSE))
    path = write_pool(a, extra=COMPACTS.format("a"))
    path.write_text(path.read_text().replace("[workers.a]", "[workers.a]\nhas_tools = false"))
    async with open_gateway() as (_, address, client):
        status, _, said = await ask(client, address, converse(**fields))
        assert status == 400, said
    assert not a.seen


@pytest.mark.parametrize("prose", ["Too short.", "", f"# Orders\n{END}", f"{'penguin ' * 30}{END}"])
async def test_a_refused_summary_is_replaced_by_the_rules_and_not_paid_again(serve: Serve, prose: str) -> None:
    a, b = serve(answer_with(prose)), serve(answer_with(prose))
    write_pool(a, b, extra=COMPACTS.format("b"))
    async with open_gateway() as (app, address, client):
        for cost in ((0.003 if prose else 0.005), 0.001):
            status, headers, _ = await ask(client, address, converse())
            assert status == 200
            assert float(headers["x-ripieno-cost-usd"]) == pytest.approx(cost)
            sent: Any = a.seen[-1].body["messages"]
            assert len(sent) < 13
            assert DECISION in sent[0]["content"]
            decision = app.ledger.decisions.find(headers["x-ripieno-decision"]).decision
            assert any("without a worker's summary" in reason for reason in decision.reasons)
    assert count_summaries(b) == (1 if prose else 2), "an empty answer is asked for twice"


async def test_a_worker_that_fails_at_no_cost_is_asked_again_for_a_summary(serve: Serve) -> None:
    written = iter([Reply(status=400), Reply(text=PROSE)])

    def answer(seen: ReceivedRequest) -> Reply:
        return next(written) if "You shorten" in json.dumps(seen.body) else Reply(text="fine")

    a, b = serve(), serve(answer)
    path = write_pool(a, b, extra=COMPACTS.format("b"))
    path.write_text(path.read_text().replace("usd_per_call = 2e-3", 'price = "free"'))
    async with open_gateway() as (_, address, client):
        for _ in range(3):
            assert (await ask(client, address, converse()))[0] == 200
    assert count_summaries(b) == 2
