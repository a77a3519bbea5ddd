"""Background loops of a gateway: each survives its failures, shows them, and recovers."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import ClientSession
from tests.conftest import HANG_S
from tests.integration.conftest import ADMIN, Serve, open_app, open_gateway, write_pool
from tests.integration.test_app import TASK
from tests.integration.test_learning import STILL, judge, promote_checkpoint

from ripieno.app import Installation
from ripieno.app import installation as opening
from ripieno.app.feedback import record_feedback
from ripieno.domain import Judged, KeyLimits, Task, Vector
from ripieno.encoders import CachedEncoder, Encoder, GuardedEncoder
from ripieno.gateway import opening as gateway_opening
from ripieno.providers import Provider
from ripieno.providers.health import UNREACHABLE

SECRET = "/home/eva/rp-secret"
OTHER = Task.from_text("Name a river of Norway, and say where it ends.")


@pytest.fixture(autouse=True)
def quick_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the gateway's loops often."""
    monkeypatch.setattr(gateway_opening, "FOLLOW_S", 0.02)
    monkeypatch.setattr(opening, "FOLLOW_S", 0.02)


class FaultyEncoder:
    """An encoder plugin with a bug that the test fixes later."""

    def __init__(self, inner: Encoder) -> None:
        self.inner, self.name, self.dimensions = inner, inner.name, inner.dimensions
        self.is_mended = False

    async def encode(self, texts: Sequence[str]) -> Vector:
        if not self.is_mended:
            raise ValueError(SECRET)
        return await self.inner.encode(texts)

    async def close(self) -> None:
        await self.inner.close()


class FaultyProvider:
    """A provider plugin whose check has a bug."""

    def __init__(self, inner: Provider) -> None:
        self.inner = inner

    async def check(self, worker: object) -> str:
        raise RuntimeError(SECRET)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


async def see(client: ClientSession, address: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Poll the gateway's health until it is as expected."""
    async with asyncio.timeout(HANG_S):
        while True:
            async with client.get(f"{address}/healthz") as response:
                assert response.status == 200
                health: dict[str, Any] = await response.json()
            if wanted(health):
                return health


def find(health: dict[str, Any], name: str) -> dict[str, Any]:
    return next((loop for loop in health.get("loops", []) if loop["name"] == name), {})


def fails(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda health: find(health, name).get("consecutive_failures", 0) >= 2


def is_well(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda health: health["status"] == "ok" and find(health, name).get("state") == "ok"


async def count_failures(client: ClientSession, address: str, name: str) -> float:
    async with client.get(f"{address}/metrics", headers=ADMIN) as response:
        shown = await response.text()
    begins = f'ripieno_loop_runs_total{{loop="{name}",outcome="failed"}} '
    return float(next(line.removeprefix(begins) for line in shown.splitlines() if line.startswith(begins)))


async def learn_elsewhere() -> None:
    """Let another process answer a task and get feedback."""
    async with open_app() as other:
        decision, _ = await other.runtime.orchestrator.run(OTHER)
        await record_feedback(other, decision.id, judge(0.0))


def folded(app: Installation) -> int:
    estimator = app.runtime.routing.router.estimator
    assert estimator is not None
    return estimator.state.folded


async def test_a_plugin_that_fails_stops_learning_for_no_longer_than_it_fails(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        await promote_checkpoint(app, tmp_path)
    async with open_gateway() as (app, address, client):
        decision, _ = await app.runtime.orchestrator.run(TASK)
        cached = app.analyzer.encoder
        assert isinstance(cached, CachedEncoder)
        assert isinstance(cached.inner, GuardedEncoder)
        faulty = FaultyEncoder(cached.inner.inner)
        cached.inner.inner = faulty
        await learn_elsewhere()
        health = await see(client, address, fails("learning"))
        assert health["status"] == "degraded"
        assert find(health, "learning")["state"] == "failing"
        assert find(health, "learning")["last_error"] == "ValueError"
        assert SECRET not in json.dumps(health), "its message stands in the log alone"
        assert find(health, "keys")["consecutive_failures"] == 0
        assert await count_failures(client, address, "learning") >= 2
        logged = [record.exc_info[0] for record in caplog.records if record.exc_info]
        assert ValueError in logged, "with its traceback"
        assert folded(app) == 0
        body = {"decision": decision.id, "quality": 0.0}
        async with client.post(f"{address}/v1/feedback", json=body, headers=ADMIN) as response:
            assert response.status == 200, "it is recorded, and learned from later"
        faulty.is_mended = True
        await see(client, address, is_well("learning"))
        assert folded(app) == 2, "the outcomes that failed are learned from"


@contextmanager
def damaged(table: str, key: str, name: str, damage: dict[str, object]) -> Iterator[None]:
    """Change fields of one body in the ledger by SQL, and restore them at the end."""
    with closing(sqlite3.connect("ledger.db")) as connection:
        (before,) = connection.execute(f"SELECT body FROM {table} WHERE {key} = ?", (name,)).fetchone()

    def write(body: str) -> None:
        with closing(sqlite3.connect("ledger.db")) as connection, connection:
            connection.execute(f"UPDATE {table} SET body = ? WHERE {key} = ?", (body, name))

    write(json.dumps(json.loads(before) | damage))
    yield
    write(before)


async def test_a_damaged_outcome_stops_learning_until_it_is_repaired(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        await promote_checkpoint(app, tmp_path)
    async with open_gateway() as (app, address, client):
        decision, run = await app.runtime.orchestrator.run(OTHER)
        assert app.ledger.runs.of_decision(decision.id) == [run]
        with damaged("entries", "id", f"executed:{run.id}", {"calls": []}):
            await app.ledger.append(Judged(run=run.id, verdict=judge(0.0)))
            health = await see(client, address, fails("learning"))
            assert (health["status"], find(health, "learning")["last_error"]) == ("degraded", "IndexError")
        await see(client, address, is_well("learning"))
        assert folded(app) == 1


async def test_a_damaged_key_does_not_keep_others_from_being_revoked(serve: Serve) -> None:
    write_pool(serve())
    async with open_gateway() as (app, address, client):
        other, _ = app.ledger.keys.create("other", KeyLimits())
        key, secret = app.ledger.keys.create("mine", KeyLimits())
        headers = {"authorization": f"Bearer {secret}"}
        async with client.get(f"{address}/v1/models", headers=headers) as response:
            assert response.status == 200
        with damaged("keys", "id", other.id, {"limits": {"usd_per_day": -1}}):
            health = await see(client, address, fails("keys"))
            assert (health["status"], find(health, "keys")["last_error"]) == ("degraded", "LedgerCorrupt")
            assert await count_failures(client, address, "keys") >= 2
        async with open_app() as elsewhere:
            elsewhere.ledger.keys.revoke(key.id)
        await see(client, address, is_well("keys"))
        async with asyncio.timeout(HANG_S):
            while True:
                async with client.get(f"{address}/v1/models", headers=headers) as response:
                    if response.status == 401:
                        break


async def test_a_check_that_raises_does_not_delay_the_recovery_of_other_workers(serve: Serve) -> None:
    write_pool(serve(), serve())
    async with open_gateway() as (app, address, client):
        a, b = app.runtime.pool.ids
        providers = cast("dict[str, Provider]", app.runtime.providers)
        whole = providers["a"]
        providers["a"] = cast(Provider, FaultyProvider(whole))
        for worker in (a, b):
            app.health.note_failure(worker, UNREACHABLE, is_final=True)
        health = await see(client, address, fails("probing"))
        assert (health["status"], find(health, "probing")["last_error"]) == ("degraded", "RuntimeError")
        assert health["unhealthy"] == [a]
        assert SECRET not in json.dumps(health)
        assert await count_failures(client, address, "probing") >= 2
        providers["a"] = whole
        health = await see(client, address, is_well("probing"))
        assert health["unhealthy"] == []
