"""Virtual keys over the wire: what they may do, what they cost, and that no key overspends its budget."""

import asyncio
import json
import sqlite3
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from tests.integration.conftest import ADMIN, Serve, open_gateway, write_pool

from ripieno.domain import KeyLimits, Privacy
from ripieno.testing import Reply

ASK = {"model": "auto", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
NUMBERS = count()


async def make_key(address: str, client: ClientSession, **limits: object) -> str:
    body = {"name": f"team {next(NUMBERS)}", "limits": limits}
    async with client.post(f"{address}/admin/keys", json=body, headers=ADMIN) as response:
        assert response.status == 201
        return str((await response.json())["secret"])


async def ask(address: str, client: ClientSession, key: str, **fields: object) -> tuple[int, dict[str, object]]:
    headers = {"authorization": f"Bearer {key}"}
    async with client.post(f"{address}/v1/chat/completions", json=ASK | fields, headers=headers) as response:
        return response.status, await response.json()


def code_of(said: dict[str, object]) -> object:
    error = said["error"]
    assert isinstance(error, dict)
    return error["code"]


async def test_a_key_is_made_used_shown_and_ended(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve())
    async with open_gateway() as (app, address, client):
        secret = await make_key(address, client, usd_per_day=1.0)
        assert (await ask(address, client, secret))[0] == 200
        decision = app.ledger.decisions.last()
        assert decision is not None
        run = app.ledger.runs.of_decision(decision)[0]
        async with client.get(f"{address}/admin/keys", headers=ADMIN) as response:
            shown = (await response.json())["keys"][0]
        assert run.key == shown["id"]
        assert shown["limits"]["usd_per_day"] == 1.0
        assert {len(part["period"]) for part in shown["spent"]} == {7, 10}
        assert all(part["cost_usd"] == pytest.approx(0.001) and part["requests"] == 1 for part in shown["spent"])
        assert secret not in json.dumps(shown)
        async with client.delete(f"{address}/admin/keys/{shown['id']}", headers=ADMIN) as response:
            assert (await response.json())["revoked_at"]
        status, said = await ask(address, client, secret)
        assert (status, code_of(said)) == (401, "invalid_api_key")
        async with client.delete(f"{address}/admin/keys/nobody", headers=ADMIN) as response:
            assert response.status == 404
        wrong = {"name": "x", "limits": {"usd_per_day": -1}}
        async with client.post(f"{address}/admin/keys", json=wrong, headers=ADMIN) as response:
            assert response.status == 400
    raw = sqlite3.connect(tmp_path / "ledger.db").execute("SELECT digest, body FROM keys").fetchall()
    assert secret not in json.dumps(raw)


async def test_an_empty_name_and_the_name_of_a_live_key_are_refused(serve: Serve) -> None:
    write_pool(serve())
    async with open_gateway() as (app, address, client):

        async def create(name: str) -> tuple[int, Any]:
            async with client.post(f"{address}/admin/keys", json={"name": name}, headers=ADMIN) as response:
                return response.status, await response.json()

        for name in ("", " \t"):
            status, said = await create(name)
            assert (status, code_of(said), said["error"]["param"]) == (400, "invalid_request", "name")
            assert f"may not be empty, got {name!r}. name its user" in said["error"]["message"]
        status, made = await create("team-a")
        assert (status, made["name"]) == (201, "team-a")
        for name in ("team-a", " team-a "):
            status, said = await create(name)
            assert (status, code_of(said), said["error"]["param"]) == (400, "invalid_request", "name")
            assert f"the live key {made['id']} already has the name 'team-a'" in said["error"]["message"]
            assert f"`ripieno keys revoke {made['id']}`" in said["error"]["message"]
        assert [key.name for key in app.ledger.keys.all().values()] == ["team-a"]
        app.ledger.keys.revoke(made["id"])
        status, again = await create("team-a")
        assert status == 201, "the name of a revoked key may be used again"
        assert again["id"] != made["id"]


async def test_concurrent_requests_do_not_overspend_a_budget(serve: Serve) -> None:
    write_pool(serve())
    async with open_gateway() as (app, address, client):
        secret = await make_key(address, client, usd_per_day=0.0205)
        in_flight = 8
        lanes = asyncio.Semaphore(in_flight)

        async def one() -> int:
            async with lanes:
                return (await ask(address, client, secret))[0]

        statuses = await asyncio.gather(*(one() for _ in range(80)))
        assert set(statuses) == {200, 429}
        spent = statuses.count(200) * 0.001
        assert 0.015 <= spent <= 0.0205 + in_flight * 0.001
        status, said = await ask(address, client, secret)
        assert (status, code_of(said)) == (429, "insufficient_quota")
        kept = app.ledger.keys.spent(tuple(p for p in app.ledger.keys.spent(()) or ()))
        assert kept == {}
    async with open_gateway() as (_, address, client):
        assert (await ask(address, client, secret))[0] == 429, "what was spent is known after a new start"


async def test_rates_workers_and_privacy_of_a_key_are_enforced(serve: Serve) -> None:
    path = write_pool(serve(), serve())
    path.write_text(path.read_text().replace('usd_per_call = 2e-3\nprivacy = "local"', "usd_per_call = 2e-3"))
    async with open_gateway() as (_, address, client):
        few = await make_key(address, client, requests_per_minute=3)
        statuses = [(await ask(address, client, few))[0] for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        headers = {"x-api-key": few}
        async with client.post(f"{address}/v1/chat/completions", json=ASK, headers=headers) as response:
            assert 1 <= int(response.headers["retry-after"]) <= 60
            assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
        thirsty = await make_key(address, client, tokens_per_minute=25)
        statuses = [(await ask(address, client, thirsty))[0] for _ in range(5)]
        assert statuses[:2] == [200, 200]
        assert statuses[-1] == 429
        only_b = await make_key(address, client, workers=["b"])
        status, said = await ask(address, client, only_b)
        assert (status, said["model"]) == (200, "b")
        status, said = await ask(address, client, only_b, model="a")
        assert (status, code_of(said)) == (403, "not_allowed")
        local = await make_key(address, client, privacy="local")
        assert (await ask(address, client, local))[1]["model"] == "a"
        status, said = await ask(address, client, local, model="b")
        assert (status, code_of(said)) == (400, "no_eligible_worker")


async def test_embeddings_are_made_by_a_worker_paid_and_bounded(serve: Serve) -> None:
    made = {"object": "list", "data": [{"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 500}}
    path = write_pool(serve([Reply(raw=json.dumps(made).encode())]), serve([Reply(raw=b"<html>")]))
    path.write_text(path.read_text().replace("usd_per_call = 1e-3", "input_usd_per_mtok = 2.0"))
    async with open_gateway() as (app, address, client):
        key = await make_key(address, client, workers=["a", "b"], usd_per_day=0.0035)

        async def embed(model: str, secret: str = key) -> tuple[int, dict[str, object]]:
            body, headers = {"model": model, "input": [[1, 2, 3]]}, {"x-api-key": secret}
            async with client.post(f"{address}/v1/embeddings", json=body, headers=headers) as response:
                return response.status, await response.json()

        status, said = await embed("a")
        assert (status, said) == (200, made | {"model": "a"}), "token ids and the rest of the reply pass as they are"
        assert (await embed("b"))[0] == 502, "nobody knows what it cost: what was held back for it counts"
        assert (await embed("gone"))[0] == 404
        assert (await embed("a"))[0] == 200
        status, said = await embed("a")
        assert (status, code_of(said)) == (429, "insufficient_quota"), "embeddings count like everything else"
        only_b = await make_key(address, client, workers=["b"])
        assert (await embed("a", only_b))[0] == 403
        assert app.ledger.count("executed") == 2
        spent = next(iter(app.ledger.keys.spent(tuple(sorted(_periods()))).values()))
        assert [part.cost_usd for part in spent.values()] == pytest.approx([0.002, 0.002])


def _periods() -> set[str]:
    from datetime import UTC, datetime

    day = datetime.now(tz=UTC).date().isoformat()
    return {day, day[:7]}


async def test_admin_is_for_the_master_key_and_never_for_other_sites(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", "the-master-key")
    write_pool(serve())
    async with open_gateway() as (app, address, client):
        _, secret = app.ledger.keys.create("team", KeyLimits(privacy=Privacy.LOCAL))
        url, master = f"{address}/admin/keys", {"authorization": "Bearer the-master-key"}
        async with client.get(url) as response:
            assert response.status == 401
        async with client.get(url, headers=master) as response:
            assert response.status == 200
        async with client.post(url, json={"name": "again"}, headers=master) as response:
            assert response.status == 201, "and the new keys are known at once"
        async with client.get(url, headers={"authorization": f"Bearer {secret}"}) as response:
            assert response.status == 403
        async with client.get(url, headers=master | {"origin": "http://evil.example"}) as response:
            assert response.status == 403
        assert (await ask(address, client, "the-master-key"))[0] == 200


async def test_an_equal_request_is_answered_from_the_cache_if_allowed(serve: Serve) -> None:
    server = serve()
    write_pool(server, extra="[cache]\nanswers = true")
    async with open_gateway() as (_, address, client):
        url = f"{address}/v1/chat/completions"
        seen = []
        for body in (ASK, ASK, ASK | {"ripieno": {"cache": False}}, ASK | {"temperature": 1}):
            async with client.post(url, json=body) as response:
                assert response.status == 200
                seen.append(response.headers.get("x-ripieno-cache"))
        assert seen == [None, "hit", None, None]
        assert len(server.seen) == 3
        local = await make_key(address, client, privacy="local")
        async with client.post(url, json=ASK, headers={"x-api-key": local}) as response:
            assert "x-ripieno-cache" not in response.headers, "never across keys of different privacy"
        async with client.get(f"{address}/metrics") as response:
            assert 'ripieno_cache_requests_total{cache="answers",outcome="hit"} 1.0' in await response.text()


async def test_a_conversation_stays_with_its_worker(serve: Serve) -> None:
    write_pool(serve(), serve())
    async with open_gateway() as (_, address, client):
        url, named = f"{address}/v1/chat/completions", {"x-session-id": "s-1"}
        async with client.post(url, json=ASK | {"model": "b"}, headers=named) as response:
            assert response.headers["x-ripieno-worker"] == "b"
        tool = [*ASK["messages"], {"role": "tool", "tool_call_id": "1", "content": "4"}]
        async with client.post(url, json=ASK | {"messages": tool}, headers=named) as response:
            assert response.headers["x-ripieno-worker"] == "b"
            assert "conversation so far" in response.headers["x-ripieno-why"]
        async with client.post(url, json=ASK | {"messages": tool}, headers={"x-session-id": "s-2"}) as response:
            assert response.headers["x-ripieno-worker"] == "a"
