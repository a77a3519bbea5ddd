"""The end of a run: answered, failed or suspended, once, with all its calls and their cost."""

import asyncio
import json
from dataclasses import FrozenInstanceError, replace

import pytest
from tests.integration.conftest import ADMIN_KEY, Serve, open_app, write_pool

from ripieno.app import Installation
from ripieno.domain import Budget, Executed, Finding, Mode, Op, Plan, Run, Step, Task, Turns, Verdict, WorkerId
from ripieno.errors import ApprovalPending, BudgetExhausted, ConfigError, InvalidPlan, ProviderError
from ripieno.execute import Answered, Executor, Failed, Started, Suspended
from ripieno.gateway.gate import Gate
from ripieno.gateway.http import Request, Stream
from ripieno.gateway.keyring import Keyring
from ripieno.gateway.server import Gateway
from ripieno.gateway.visitors import Visitors
from ripieno.orchestrator import make_arrival
from ripieno.testing import Reply

A, B = WorkerId("a"), WorkerId("b")
TASK = Task.from_text("What is five times seven?")
LONG = Reply(text=" ".join(["word"] * 60_000))
FAILS = Reply(status=500)


def read_ends(app: Installation) -> list[Run]:
    """Read the recorded ends of all runs."""
    return [stored.entry.run for stored in app.ledger.read(kinds=("executed",)) if isinstance(stored.entry, Executed)]


async def collect(app: Installation, started: Started) -> str:
    """Read a stream to its end."""
    return "".join([piece.text async for piece in await app.runtime.orchestrator.stream(started)])


async def test_a_run_with_an_answer_ends_answered_and_takes_nothing_more(serve: Serve) -> None:
    write_pool(serve([FAILS]), serve([Reply(text="35")]))
    async with open_app() as app:
        started = await app.runtime.orchestrator.start(TASK)
        with pytest.raises(RuntimeError, match="has not ended"):
            started.result()
        answered = await app.runtime.orchestrator.finish(started)
        assert started.result() is started.recorder.ended is answered
        assert (answered.answer.text, answered.run.worker) == ("35", "b")
        assert [call.worker for call in answered.run.calls][-1] == "b"
        call = answered.run.calls[0]
        with pytest.raises(RuntimeError, match="has ended"):
            started.recorder.record(call)
        with pytest.raises(RuntimeError, match="has ended"):
            started.recorder.add_finding(Finding(step="1.check", author=A, verdict=Verdict(verifier="v", quality=1.0)))
        with pytest.raises(RuntimeError, match="has ended"):
            started.fail(ProviderError("late", worker="a"))
        with pytest.raises(FrozenInstanceError):
            answered.run = replace(answered.run, answer=None)  # type: ignore[misc]  # it is frozen
        assert [run.answer for run in read_ends(app)] == [replace(answered.answer, native=None)]


async def test_a_run_whose_workers_all_fail_is_recorded_as_failed_with_its_price(serve: Serve) -> None:
    write_pool(serve([Reply(text=" ")]), serve([FAILS]))
    async with open_app() as app:
        started = await app.runtime.orchestrator.start(TASK)
        with pytest.raises(ProviderError) as caught:
            await app.runtime.orchestrator.finish(started)
        failed = started.recorder.ended
        assert isinstance(failed, Failed)
        assert failed.error is caught.value
        with pytest.raises(ProviderError):
            started.result()
        (run,) = read_ends(app)
        assert run == failed.run
        assert run.answer is None
        assert {call.worker: call.failure for call in run.calls} == {"a": "bad_answer", "b": "server_error"}
        assert run.cost_usd == pytest.approx(0.004), "two tries of the first worker, and one price of the second"


async def test_a_run_that_fails_after_a_step_ends_without_the_answer_of_that_step(serve: Serve) -> None:
    write_pool(serve([Reply(text="half of it")]), serve([FAILS]))
    half = Plan(steps=(Step(worker=A, op=Op.EXTRACT), Step(worker=B, op=Op.SOLVE, access=(0,))))
    async with open_app() as app:
        started = await app.runtime.orchestrator.start(TASK, arrival=replace(make_arrival(app.clock), workflow=half))
        with pytest.raises(ProviderError):
            await app.runtime.orchestrator.finish(started)
        assert isinstance(started.recorder.ended, Failed)
        assert started.recorder.ended.run.answer is None
        assert {call.step for call in started.recorder.ended.run.calls} == {"1", "2"}


async def test_a_run_that_waits_for_a_human_is_suspended_and_its_next_start_is_answered(serve: Serve) -> None:
    write_pool(serve([Reply(text="35")]))
    asks = Plan(steps=(Step(worker=A, op=Op.EXTRACT), Step(worker=A, op=Op.SOLVE, access=(0,), needs_approval=True)))
    async with open_app() as app:
        started = await app.runtime.orchestrator.start(TASK, arrival=replace(make_arrival(app.clock), workflow=asks))
        with pytest.raises(ApprovalPending) as pending:
            await app.runtime.orchestrator.finish(started)
        assert started.recorder.ended == Suspended(pending=pending.value)
        with pytest.raises(ApprovalPending):
            started.result()
        assert read_ends(app) == [], "it has no end yet"
        await app.runs.resolve(started.decision.id, is_approved=True, by="ada")
        answered = await app.runs.resume(app.runs.find(started.decision.id))
        assert isinstance(answered, Answered)
        assert answered.run.id == started.decision.id
        assert [call.step for call in answered.run.calls] == ["1", "2"], "what was done before counts, once"
        assert read_ends(app) == [answered.run]


async def test_an_abandoned_stream_is_recorded_as_failed_with_its_cost(serve: Serve) -> None:
    write_pool(serve([LONG]))
    async with open_app() as app:
        started = await app.runtime.orchestrator.start(TASK)
        pieces = await app.runtime.orchestrator.stream(started)
        assert (await anext(pieces)).text == "word"
        await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
        failed = started.recorder.ended
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, asyncio.CancelledError)
        (run,) = read_ends(app)
        assert run == failed.run
        assert (run.answer, run.cost_usd) == (None, 0.001)
        assert [call.failure for call in run.calls] == ["cancelled"]


async def test_a_checked_answer_is_recorded_even_if_the_client_leaves(serve: Serve) -> None:
    write_pool(serve([Reply(text="35 " * 50)]), serve([Reply(text="ACCEPT")]))
    whole = Plan(steps=(Step(worker=A, op=Op.SOLVE), Step(worker=B, op=Op.VERIFY, access=(0,))))
    async with open_app() as app:
        started = await app.runtime.orchestrator.start(TASK, arrival=replace(make_arrival(app.clock), workflow=whole))
        pieces = await app.runtime.orchestrator.stream(started)
        await anext(pieces)
        assert isinstance(started.recorder.ended, Answered), "it comes whole, when the run is over"
        await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
        assert [run.answer is not None for run in read_ends(app)] == [True]


async def test_an_abandoned_stream_does_not_count_as_answered(serve: Serve) -> None:
    write_pool(serve([LONG]))
    body = json.dumps({"model": "auto", "stream": True, "messages": [{"role": "user", "content": "Say it."}]})
    async with open_app() as app:
        keyring = Keyring(app.ledger.keys, admin=ADMIN_KEY, is_open=True, clock=app.clock)
        visitors = Visitors(key=ADMIN_KEY, viewer_key=None, is_open=True, clock=app.clock)
        gateway = Gateway(app, gate=Gate(hosts=(), origins=(), is_loopback=True), keyring=keyring, visitors=visitors)
        headers = {"host": "127.0.0.1", "content-type": "application/json"}
        asked = Request("POST", "/v1/chat/completions", "", headers, body.encode())
        stream = await gateway(asked)
        assert isinstance(stream, Stream), stream
        assert b"word" in await anext(stream.parts)
        await stream.parts.aclose()  # type: ignore[attr-defined]  # an async generator
        assert stream.on_end is not None
        stream.on_end()
        counted = gateway.metrics.render().decode()
        await gateway.close()
    assert 'ripieno_calls_total{outcome="cancelled",worker="a"} 1.0' in counted
    assert 'ripieno_requests_total{route="POST /v1/chat/completions",status="499"} 1.0' in counted
    assert 'status="200"' not in counted


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_error_names_a_budget_that_the_plan_used_up(serve: Serve, *, is_stream: bool) -> None:
    server = serve([Reply(text="this is no plan")])
    write_pool(server, extra="[conductor]\nkind = 'prompted'")
    task = replace(TASK, objective=replace(TASK.objective, mode=Mode.PLAN), budget=Budget(calls=2))
    async with open_app() as app:
        started = await app.runtime.orchestrator.start(task)
        assert [call.step for call in started.recorder.calls] == ["plan", "plan"]
        with pytest.raises(BudgetExhausted) as caught:
            await (collect(app, started) if is_stream else app.runtime.orchestrator.finish(started))
        assert (caught.value.spent, caught.value.limit) == (2, 2)
        assert [len(run.calls) for run in read_ends(app)] == [2], "what the plan took is paid"
    assert len(server.seen) == 2


class Idle:
    """A director that chooses nothing."""

    async def choose(self, seen: object) -> None:
        """Choose no step."""


async def test_turns_without_a_director_or_without_a_step_are_refused_by_name(serve: Serve) -> None:
    write_pool(serve())
    async with open_app() as app:
        decision = await app.runtime.orchestrator.decide(TASK)
        turns = replace(decision, workflow=Turns(worker=A, most=2))
        executor = Executor(app.runtime.caller, app.runtime.grading)
        nobody = Started(decision=turns, task=TASK, setup=app.runtime.routing.router.setup)
        with pytest.raises(ConfigError, match="has no director"):
            await executor.execute(nobody)
        idle = replace(nobody, director=Idle(), recorder=type(nobody.recorder)())
        with pytest.raises(InvalidPlan, match="chose no step"):
            await executor.execute(idle)
        assert isinstance(idle.recorder.ended, Failed)


async def test_a_run_is_not_resumed_where_runs_are_not_durable(serve: Serve) -> None:
    write_pool(serve())
    asks = Plan(steps=(Step(worker=A, op=Op.SOLVE, needs_approval=True),))
    async with open_app() as app:
        with pytest.raises(ApprovalPending):
            await app.runtime.orchestrator.run(TASK, arrival=replace(make_arrival(app.clock), workflow=asks))
        (found,) = app.runs.unfinished()
    settings = write_pool(serve())
    settings.write_text(settings.read_text().replace("[ledger]", "[ledger]\ndurable_runs = false"))
    async with open_app() as app:
        assert await app.runtime.orchestrator.resume(found) is None
