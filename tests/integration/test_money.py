"""Money over the wire: concurrent requests overspend no budget, and an unknown cost is never zero."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from tests.integration.conftest import Serve

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.domain import Call, Executed, KeyLimits, Origin, Run, Usage, WorkerId
from ripieno.gateway import bind_socket, running
from ripieno.ledger import Ledger, Reserve
from ripieno.testing import ReceivedRequest, Reply, ScriptedServer

URL = "sqlite:///ledger.db"
TOKENS = "input_usd_per_mtok = 2.5\noutput_usd_per_mtok = 10.0"
ASK = {"messages": [{"role": "user", "content": "What is 2 + 2?"}]}
BUDGET = 0.02


def write_worker(*servers: ScriptedServer, price: str = TOKENS, extra: str = "") -> None:
    lines = ["[ledger]", f"url = '{URL}'"]
    for index, server in enumerate(servers):
        name = "abc"[index]
        lines += [f"[providers.{name}]", 'kind = "openai"', f'base_url = "{server.base_url}"']
        lines += [f"[workers.{name}]", f'provider = "{name}"', "max_concurrency = 64", price]
    Path("ripieno.toml").write_text("\n".join(lines) + f"\n{extra}\n")


def say_all_that_is_allowed(request: ReceivedRequest) -> Reply:
    """A worker that uses up its limit: 1,000 words where there is none."""
    limit = request.body.get("max_tokens")
    return Reply(text=" ".join(["word"] * (limit if isinstance(limit, int) else 1000)))


def make_key(**limits: float) -> str:
    """A key from before the gateway starts."""
    with Ledger(URL) as ledger:
        name = f"team {len(ledger.keys.all())}"
        return ledger.keys.create(name, KeyLimits(**limits))[1]  # type: ignore[arg-type]  # amounts alone


@asynccontextmanager
async def open_gateway() -> AsyncIterator[tuple[Installation, str, ClientSession]]:
    connector = TCPConnector(limit=0)
    async with Installation(load_settings()) as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with (
            running(app, listener) as address,
            ClientSession(connector=connector, timeout=ClientTimeout(total=300)) as client,
        ):
            yield app, address, client


async def ask(
    address: str, client: ClientSession, key: str | None = None, **fields: object
) -> tuple[int, dict[str, str], dict[str, object]]:
    sent = {} if key is None else {"authorization": f"Bearer {key}"}
    body = {"model": "auto"} | ASK | fields
    async with client.post(f"{address}/v1/chat/completions", json=body, headers=sent) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, headers, await response.json()


def read_spent() -> float:
    """What the ledger's runs have cost."""
    with Ledger(URL) as ledger:
        runs = [stored.entry.run for stored in ledger.read(kinds=("executed",)) if isinstance(stored.entry, Executed)]
    costs = [run.cost_usd for run in runs]
    assert None not in costs
    return sum(cost or 0.0 for cost in costs)


@pytest.mark.parametrize("fields", [{"max_tokens": 200}, {}, {"max_tokens": 200, "model": "a"}])
async def test_a_thousand_requests_at_once_spend_no_more_than_the_budget(
    serve: Serve, fields: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    write_worker(serve(say_all_that_is_allowed))
    key = make_key(usd_per_day=BUDGET)
    async with open_gateway() as (_, address, client):
        found = await asyncio.gather(*(ask(address, client, key, **fields) for _ in range(1000)))
        statuses = [status for status, _, _ in found]
        while (await ask(address, client, key, **fields))[0] == 200:
            pass
    spent = read_spent()
    with capsys.disabled():
        print(f"\n1,000 requests at once on ${BUDGET}: {statuses.count(200)} answered, ${spent:.6f} spent")
    assert set(statuses) <= {200, 429, 400, 503}
    assert 0.0 < spent <= BUDGET
    assert spent >= 0.5 * BUDGET


async def test_two_gateways_on_one_ledger_share_the_budget(serve: Serve) -> None:
    write_worker(serve(say_all_that_is_allowed))
    key = make_key(usd_per_month=BUDGET)
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(open_gateway()) for _ in range(2)]
        await asyncio.gather(
            *(ask(address, client, key, max_tokens=200) for _ in range(150) for _, address, client in gateways)
        )
    assert 0.0 < read_spent() <= BUDGET


async def test_a_request_s_own_budget_is_a_ceiling_within_the_call(serve: Serve) -> None:
    server = serve(say_all_that_is_allowed)
    write_worker(server)
    async with open_gateway() as (_, address, client):
        status, headers, _ = await ask(address, client, max_tokens=4000, ripieno={"budget_usd": 0.002})
        assert status == 200
        limit = server.seen[-1].body["max_tokens"]
        assert isinstance(limit, int)
        assert 100 < limit < 200
        assert headers["x-ripieno-max-tokens"] == str(limit)
        assert float(headers["x-ripieno-cost-usd"]) <= 0.002
        status, headers, _ = await ask(address, client, max_tokens=40, ripieno={"budget_usd": 0.002})
        assert (status, server.seen[-1].body["max_tokens"]) == (200, 40)
        assert "x-ripieno-max-tokens" not in headers
        status, _, said = await ask(address, client, max_tokens=40, ripieno={"budget_usd": 0.00001})
        assert status == 400
        assert "over_budget" in json.dumps(said)
        await ask(address, client)
        assert "max_tokens" not in server.seen[-1].body, "without a budget nothing is added"


@pytest.mark.parametrize("mode", ["cascade", "agreement", "vote", "synthesize", "best-of", "verified"])
async def test_no_workflow_passes_its_ceiling(serve: Serve, mode: str) -> None:
    write_worker(serve(say_all_that_is_allowed), serve(say_all_that_is_allowed), serve(say_all_that_is_allowed))
    async with open_gateway() as (_, address, client):
        wanted = {"budget_usd": 0.005, "workflow": mode}
        status, headers, _ = await ask(address, client, max_tokens=300, ripieno=wanted)
    assert status in (200, 429), mode
    assert "x-ripieno-cost-usd" not in headers or float(headers["x-ripieno-cost-usd"]) <= 0.005
    assert read_spent() <= 0.005


async def test_tokens_before_a_client_left_are_paid(serve: Serve) -> None:
    server = serve([Reply(text=" ".join(["word"] * 60_000))])
    write_worker(server)
    key = make_key(usd_per_day=50.0)
    async with open_gateway() as (_, address, client):
        body = {"model": "a", "stream": True} | ASK
        async with client.post(f"{address}/v1/chat/completions", json=body, headers={"x-api-key": key}) as response:
            await response.content.readline()
        assert await asyncio.to_thread(server.left.wait, 60)
    assert read_spent() > 0.0
    with Ledger(URL) as ledger:
        (run,) = [stored.entry.run for stored in ledger.read(kinds=("executed",)) if isinstance(stored.entry, Executed)]
        assert ledger.keys.holds.read() == {}
    assert run.calls[0].failure == "cancelled"
    assert (run.calls[0].usage.output_tokens or 0) > 0


async def test_a_call_that_the_deadline_ends_is_paid(serve: Serve) -> None:
    write_worker(serve([Reply(hangs=True)]))
    async with open_gateway() as (_, address, client):
        status, _, _ = await ask(address, client, ripieno={"deadline_ms": 300})
        assert status == 504
    assert read_spent() > 0.0


async def test_an_unknown_price_is_reported_as_unknown_and_passes_no_budget(serve: Serve) -> None:
    write_worker(serve(), price="")
    key = make_key(usd_per_day=1.0)
    unlimited = make_key(requests_per_minute=50)
    async with open_gateway() as (_, address, client):
        status, headers, _ = await ask(address, client, unlimited)
        assert (status, headers["x-ripieno-cost-usd"]) == (200, "unknown")
        for fields in ({}, {"model": "a"}):
            status, _, said = await ask(address, client, key, **fields)
            assert status == 400
            assert "unknown_price" in json.dumps(said)
        status, _, said = await ask(address, client, ripieno={"budget_usd": 1.0})
        assert (status, "unknown_price" in json.dumps(said)) == (400, True)
        async with client.get(f"{address}/metrics") as response:
            lines = (await response.text()).splitlines()
        assert 'ripieno_calls_of_unknown_cost_total{worker="a"} 1.0' in lines
        assert not any(line.startswith("ripieno_cost_usd_total") for line in lines), "no zero by accident"
    with Ledger(URL) as ledger:
        (run,) = [stored.entry.run for stored in ledger.read(kinds=("executed",)) if isinstance(stored.entry, Executed)]
        assert run.calls[0].cost_usd is None
        spent = ledger.keys.spent((ledger_day(ledger),))
        assert [(part.cost_usd, part.unknown) for periods in spent.values() for part in periods.values()] == [(0.0, 1)]


def ledger_day(ledger: Ledger) -> str:
    from ripieno.domain import SystemClock, find_periods

    return find_periods(SystemClock().now())[0]


async def test_a_free_worker_passes_every_budget(serve: Serve) -> None:
    write_worker(serve(), price="price = 'free'")
    key = make_key(usd_per_day=0.0001)
    async with open_gateway() as (_, address, client):
        status, headers, _ = await ask(address, client, key)
        assert status == 200
        assert float(headers["x-ripieno-cost-usd"]) == 0.0


async def test_the_cost_that_a_provider_states_is_the_cost(serve: Serve) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.0123}
    choice = {"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}
    raw = json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    write_worker(serve([Reply(raw=raw)]), price="")
    async with open_gateway() as (_, address, client):
        _, headers, _ = await ask(address, client)
        assert float(headers["x-ripieno-cost-usd"]) == pytest.approx(0.0123)


async def test_a_fallback_is_within_the_budget_too(serve: Serve) -> None:
    bad, good = serve([Reply(status=500)]), serve(say_all_that_is_allowed)
    write_worker(bad, good)
    async with open_gateway() as (_, address, client):
        status, headers, _ = await ask(address, client, max_tokens=4000, ripieno={"budget_usd": 0.002})
        assert status == 200
        assert float(headers["x-ripieno-cost-usd"]) <= 0.002


async def test_the_reason_of_a_decision_names_unknown_prices(serve: Serve) -> None:
    write_worker(serve(), serve(), price="")
    path = Path("ripieno.toml")
    path.write_text(path.read_text().replace("[providers.b]", f"{TOKENS}\n[providers.b]"))
    async with open_gateway() as (app, address, client):
        _, headers, _ = await ask(address, client, ripieno={"preset": "cheap"})
        decided = app.ledger.decisions.find(headers["x-ripieno-decision"])
    assert headers["x-ripieno-worker"] == "a", "a worker of unknown price ranks as the most expensive one"
    assert any("price unknown, ranked as the most expensive: b" in reason for reason in decided.decision.reasons)
    assert {e.worker: e.cost_usd is None for e in decided.decision.estimates} == {"a": False, "b": True}


async def test_a_reply_that_is_no_answer_is_paid_too(serve: Serve) -> None:
    write_worker(serve([Reply(raw=b"<html>"), Reply(text="four")]), price="usd_per_call = 0.01")
    async with open_gateway() as (_, address, client):
        status, headers, _ = await ask(address, client, model="a")
        assert (status, headers["x-ripieno-attempts"]) == (200, "2")
        assert float(headers["x-ripieno-cost-usd"]) == pytest.approx(0.02)


async def test_a_call_without_output_is_known_to_cost_nothing(serve: Serve) -> None:
    write_worker(serve([Reply(status=500)]), price="")
    async with open_gateway() as (_, address, client):
        assert (await ask(address, client))[0] == 502
    assert read_spent() == 0.0


def test_processes_on_one_postgres_never_grant_the_same_money(postgres: str) -> None:
    with Ledger(postgres) as one, Ledger(postgres) as two:
        key, _ = one.keys.create("team", KeyLimits(usd_per_day=1.0))

        def grab(number: int) -> float:
            ledger = (one, two)[number % 2]
            wanted = Reserve(run=f"r{number}", key=key.id, limits=key.limits, most_usd=0.15, least_usd=0.05)
            (held,) = ledger.keys.holds.apply([wanted])
            assert held is not None
            return held.granted_usd or 0.0

        with ThreadPoolExecutor(8) as threads:
            granted = list(threads.map(grab, range(40)))
        assert sum(granted) == pytest.approx(1.0)
        call = Call(worker=WorkerId("w"), worker_version="1", usage=Usage(), cost_usd=None, latency_s=1.0)
        run = Run(id="r0", task="t", origin=Origin.TRAFFIC, calls=(call,), answer=None, key=key.id)
        one.append_now([Executed(run=run)])
        assert "r0" not in two.keys.holds.read()
        found = two.keys.spent((ledger_day(two),))[key.id]
        assert [(part.cost_usd, part.unknown) for part in found.values()] == [(0.0, 1)]
