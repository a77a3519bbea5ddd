"""A changed configuration is taken whole or not at all, while requests run."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import HANG_S
from tests.integration.conftest import Serve, open_app, open_gateway, write_pool

from ripieno.app import Installation
from ripieno.app.runtime import Runtime
from ripieno.app.watch import Watch
from ripieno.config import load_settings
from ripieno.config.reload import RELOADABLE
from ripieno.domain import Message, Mode, Objective, Task
from ripieno.errors import DeadlineExceeded
from ripieno.execute import Answered
from ripieno.testing import Reply

TASK = Task.from_text("What is 2 + 2?")
STREAM = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "Count to three"}]}


async def test_flags_survive_a_change_of_the_file(serve: Serve) -> None:
    path = write_pool(serve(), serve())
    async with Installation(load_settings(flags={"gateway": {"port": 5999}})) as installation:
        path.write_text(path.read_text() + "[pool]\nmuted = ['a']\n")
        runtime = installation.runtime
        assert runtime.settings.pool.muted == ("a",)
        assert runtime.settings.gateway.port == 5999
        assert installation.reload_fault is None


async def test_a_budget_of_the_file_holds_back_spending_at_once(serve: Serve) -> None:
    path = write_pool(serve(), extra="[route]\nbudget_usd_per_task = 9.0")
    async with open_app() as app:
        await app.runtime.orchestrator.run(TASK)
        assert (await app.runtime.orchestrator.decide(TASK)).objective.money_weight == 0.0
        kept = app.runtime.pacer
        path.write_text(path.read_text() + "[cache]\nanswers = true\n")
        assert app.runtime.pacer is kept, "what was spent counts on under the same budget"
        path.write_text(path.read_text().replace("9.0", "0.0001"))
        await app.runtime.orchestrator.run(TASK)
        assert (await app.runtime.orchestrator.decide(TASK)).objective.money_weight > 0.0


async def test_hedging_begins_with_the_file_that_asks_for_it(serve: Serve) -> None:
    path = write_pool(serve([Reply(hangs=True)]), serve([Reply(text="quick")]))
    async with open_app() as app:
        path.write_text(path.read_text() + "[route]\nhedge_share = 0.5\nnewcomers = 'free'\n")
        with pytest.raises(DeadlineExceeded):
            await finish_late(app.runtime, deadline_s=0.3)  # the first task saves up half a hedge
        answered = await finish_late(app.runtime, deadline_s=None)
        assert answered.answer.text == "quick"


async def finish_late(runtime: Runtime, *, deadline_s: float | None) -> Answered:
    """Run a task whose first worker is expected to answer at once."""
    started = await runtime.orchestrator.start(replace(TASK, objective=Objective(deadline_s=deadline_s)))
    soon = tuple(
        replace(each, latency_s=0.05, latency_log_sd=0.1, is_measured=True) for each in started.decision.estimates
    )
    return await runtime.orchestrator.finish(replace(started, decision=replace(started.decision, estimates=soon)))


async def test_another_conductor_writes_the_next_plan(serve: Serve) -> None:
    path = write_pool(writer := serve([Reply(text="no plan")]))
    planned = replace(TASK, objective=Objective(mode=Mode.PLAN))
    async with open_app() as app:
        await app.runtime.orchestrator.preview_plan(planned)
        assert not writer.seen
        path.write_text(path.read_text() + '[conductor]\nkind = "prompted"\nworker = "a"\n')
        await app.runtime.orchestrator.preview_plan(planned)
        assert writer.seen


async def test_compaction_begins_with_the_file_that_asks_for_it(serve: Serve) -> None:
    path = write_pool(server := serve())
    chat = "Let me look at that now, it should not take very long at all. " * 12
    turns = [Message(role=("user", "assistant")[nth % 2], content=chat) for nth in range(8)]
    first = Message(role="user", content=f"{chat} Decision: the shop will use Postgres.")
    talk = Task(messages=(first, turns[1], *turns, Message(role="user", content="And the lamp?")))
    async with open_app() as app:
        await app.runtime.orchestrator.run(talk)
        path.write_text(path.read_text() + "[memory]\ncompact_words = 300\n")
        await app.runtime.orchestrator.run(talk)
    whole, compacted = (len(str(seen.body["messages"])) for seen in server.seen)
    assert compacted < whole


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        ("home", "home = 'elsewhere'\n"),
        ("scale", "scale = 'server'\n"),
        ("gateway.port", "[gateway]\nport = 5999\n"),
        ("gateway.api_key", "[gateway]\napi_key = 'sk-hidden-from-faults'\n"),
        ("encoder.name", "[encoder]\nname = 'onnx'\n"),
        ("memory.url", "[memory]\nurl = 'sqlite:///other.db'\n"),
        ("pool.memory_mb", "[pool]\nmemory_mb = 100\n"),
        ("cache.answer_bytes", "[cache]\nanswer_bytes = 1\n"),
        ("ledger.on_fault", "[ledger]\non_fault = 'spool'\nurl = 'sqlite:///ledger.db'\n"),
    ],
)
async def test_a_key_that_needs_a_restart_is_named_and_nothing_of_its_file_applies(
    serve: Serve, key: str, lines: str
) -> None:
    path = write_pool(serve(), serve())
    good = path.read_text()
    async with open_app() as app:
        before = app.runtime
        changed = good.replace("[ledger]\nurl = 'sqlite:///ledger.db'\n", "") if "[ledger]" in lines else good
        worker = '[workers.c]\nprovider = "a"\nprice = "free"\n'
        text = f"{changed}\n{lines}{worker}" if lines.startswith("[") else f"{lines}{changed}\n{worker}"
        path.write_text(text)
        assert app.runtime is before
        fault = str(app.reload_fault)
        assert key in fault
        assert "running process cannot change it" in fault
        assert "hidden" not in fault
        path.write_text(good + worker)
        assert "c" in app.runtime.pool
        assert app.reload_fault is None


def test_every_setting_either_reloads_or_needs_a_restart() -> None:
    settings = load_settings().settings
    tables = {name: type(value).model_fields for name, value in settings if hasattr(type(value), "model_fields")}
    known = {*type(settings).model_fields, *(f"{table}.{name}" for table, names in tables.items() for name in names)}
    assert known >= RELOADABLE


@pytest.mark.parametrize(
    "left", ["", "[ledger]\nurl = 'sqlite:///ledger.db'\n", None], ids=["empty", "no workers", "gone"]
)
async def test_a_file_without_workers_does_not_bring_the_embedded_pool(serve: Serve, left: str | None) -> None:
    path = write_pool(serve())
    good = path.read_text()
    async with open_app() as app:
        if left is None:
            path.unlink()
        else:
            path.write_text(left)
        assert app.runtime.pool.ids == ("a",)
        assert "has no workers any more" in str(app.reload_fault)
        path.write_text(good)
        assert app.runtime.pool.ids == ("a",)
        assert app.reload_fault is None


async def test_two_changes_within_one_tick_of_the_clock_are_both_taken(serve: Serve) -> None:
    path = write_pool(serve(), serve(), extra="[pool]\nmuted = ['a']")
    text = path.read_text()
    async with open_app() as app:
        tick = path.stat().st_mtime_ns
        for muted in ("b", "a", "b"):
            path.write_text(text.replace("['a']", f"['{muted}']"))
            os.utime(path, ns=(tick, tick))
            assert app.runtime.settings.pool.muted == (muted,)


def test_a_file_that_rested_is_compared_by_its_stamp_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    os.utime(path, ns=(0, 0))
    watch = Watch([path, tmp_path / "none"])
    assert not watch.has_changed()
    path.write_text("two")
    assert watch.has_changed()
    assert not watch.has_changed()
    path.unlink()
    assert watch.has_changed()
    assert not watch.has_changed()


async def test_a_file_that_becomes_invalid_disturbs_no_request(serve: Serve) -> None:
    release = threading.Event()
    path = write_pool(server := serve([Reply(text="one two three", release=release), Reply(text="whole")]))
    async with open_gateway() as (app, address, client):
        async with client.post(f"{address}/v1/chat/completions", json=STREAM) as stream:
            assert b"one" in await stream.content.readline()
            path.write_text(path.read_text().replace("[workers.a]", "[workers.a]\ncolour = 1"))
            async with client.post(f"{address}/v1/chat/completions", json=STREAM | {"stream": False}) as other:
                assert (await other.json())["choices"][0]["message"]["content"] == "whole"
            release.set()
            assert b"three" in await stream.content.read()
        assert "colour" in str(app.reload_fault)
        async with client.get(f"{address}/healthz") as health:
            assert (await health.json())["status"] == "degraded"
    assert len(server.seen) == 2


async def test_a_replaced_provider_ends_its_calls_and_then_closes_its_connections(serve: Serve) -> None:
    release = threading.Event()
    old, new = serve([Reply(text="one two three", release=release)]), serve([Reply(text="new")])
    path = write_pool(old)
    async with open_gateway() as (app, address, client):
        async with client.post(f"{address}/v1/chat/completions", json=STREAM) as stream:
            assert b"one" in await stream.content.readline()
            path.write_text(path.read_text().replace(old.base_url, new.base_url))
            async with client.post(f"{address}/v1/chat/completions", json=STREAM | {"stream": False}) as other:
                assert (await other.json())["choices"][0]["message"]["content"] == "new"
            assert not old.idle.is_set()
            release.set()
            assert b"three" in await stream.content.read()
        assert await asyncio.to_thread(old.idle.wait, HANG_S), "the last call has ended"
        assert app.runtime.pool.ids == ("a",)


async def test_an_idle_replaced_provider_closes_at_once(serve: Serve) -> None:
    old, new = serve(), serve([Reply(text="new")])
    path = write_pool(old)
    async with open_app() as app:
        await app.runtime.orchestrator.run(TASK)
        assert not old.idle.is_set(), "the connection waits for the next call"
        path.write_text(path.read_text().replace(old.base_url, new.base_url))
        assert app.runtime
        assert await asyncio.to_thread(old.idle.wait, HANG_S)


async def test_a_request_keeps_the_runtime_of_its_start(serve: Serve) -> None:
    old, new = serve([Reply(text="old")]), serve([Reply(text="new")])
    path = write_pool(old)
    async with open_app() as app:
        async with started(app.runtime) as answer:
            path.write_text(path.read_text().replace(old.base_url, new.base_url))
            assert (await app.runtime.orchestrator.run_detailed(TASK)).answer.text == "new"
        assert answer == ["old"]
        assert await asyncio.to_thread(old.idle.wait, HANG_S), "a call after the swap closes its connection, too"


@asynccontextmanager
async def started(runtime: Runtime) -> AsyncIterator[list[str]]:
    """Start a run, let the block pass, then finish it; gives the answer's text."""
    run, said = await runtime.orchestrator.start(TASK), list[str]()
    yield said
    said.append((await runtime.orchestrator.finish(run)).answer.text)


async def test_the_rules_file_reloads_by_itself(serve: Serve) -> None:
    rules = Path("rules.toml")
    rules.write_text('[[rule]]\nworkers = ["a"]\n')
    write_pool(serve(), serve(), extra='[route]\npolicy = "rules"\nrules = "rules.toml"')
    async with open_app() as app:
        assert (await app.runtime.orchestrator.decide(TASK)).worker == "a"
        rules.write_text('[[rule]]\nworkers = ["b"]\n')
        assert (await app.runtime.orchestrator.decide(TASK)).worker == "b"
