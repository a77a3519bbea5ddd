"""The provenance of answers in responses; a failed run returns no partial answer."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anthropic
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI
from tests.integration.conftest import Serve, open_app, open_gateway, write_pool

from ripieno.app import Installation
from ripieno.domain import Budget, Op, Plan, Step, Task, Turns, WorkerId, Workflow
from ripieno.errors import BudgetExhausted, ProviderError
from ripieno.execute import Answered, Executor, Failed, Started, Turn
from ripieno.orchestrator import make_arrival
from ripieno.testing import ReceivedRequest, Reply, ScriptedServer

A, B, C = (WorkerId(name) for name in "abc")
TASK = Task.from_text("What is five times seven, in words?")
HALF = "INTERMEDIATE 5 * 7"
ASK: list[Any] = [{"role": "user", "content": "What is five times seven, in words?"}]
NUMERIC = {"kind": "numeric", "answer": 35}


async def post(
    address: str, client: ClientSession, path: str = "/v1/chat/completions", **fields: object
) -> tuple[int, dict[str, Any], dict[str, str]]:
    body = {"model": "auto", "messages": ASK, "input": "x", "max_tokens": 50} | fields
    async with client.post(f"{address}{path}", json=body) as response:
        return response.status, await response.json(), {name.lower(): v for name, v in response.headers.items()}


def last_words(request: ReceivedRequest) -> str:
    messages: Any = request.body["messages"]
    return str(messages[-1]["content"])


def conduct(steps: list[dict[str, object]], work: Callable[[str], Reply]) -> Callable[[ReceivedRequest], Reply]:
    """A worker that writes a plan where one is asked for, and else works as told."""

    def reply(request: ReceivedRequest) -> Reply:
        if "response_format" in request.body:
            return Reply(text=json.dumps({"steps": steps}))
        return work(last_words(request))

    return reply


# a failed run returns no partial answer


EXTRACT_SOLVE: list[dict[str, object]] = [
    {"worker": 0, "op": "extract", "source": "question"},
    {"worker": 1, "op": "solve", "source": "prev"},
]


@pytest.mark.parametrize("op", ["extract", "solve", "transform", "merge", "run"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_plan_whose_last_step_fails_is_a_typed_error(serve: Serve, op: str, is_stream: bool) -> None:
    first: list[dict[str, object]] = [{"worker": 0, "op": "extract", "source": "question"}]
    middle = [] if op == "extract" else [{"worker": 1, "op": op, "source": "prev"}]
    steps = [*first, *middle, {"worker": 0, "op": "transform", "source": "prev", "text": "put it in words"}]

    def work(words: str) -> Reply:
        return Reply(status=500) if "put it in words" in words else Reply(text=HALF)

    script = conduct(steps, work)
    path = write_pool(serve(script), serve(script), extra="[conductor]\nkind = 'prompted'")
    path.write_text(path.read_text().replace('privacy = "local"', 'privacy = "local"\ncan_run = true'))
    async with open_gateway() as (app, address, client):
        body = {"model": "auto", "messages": ASK, "ripieno": {"workflow": "plan"}, "stream": is_stream}
        async with client.post(f"{address}/v1/chat/completions", json=body) as response:
            said = await response.text()
        assert HALF not in said
        assert "provider_error" in said
        decision = app.ledger.decisions.last()
        assert decision is not None
        async with client.get(f"{address}/v1/runs/{decision}") as found:
            run = await found.json()
        assert (run["status"], run["answer"], run["worker"]) == ("failed", None, None)


async def carry(app: Installation, workflow: Workflow, task: Task = TASK) -> Answered:
    return await app.runtime.orchestrator.run_detailed(
        task, arrival=replace(make_arrival(app.clock), workflow=workflow)
    )


async def test_a_plan_returns_only_answers_to_the_whole_task(serve: Serve) -> None:
    first, checker, last = serve([Reply(text="thirty-five")]), serve([Reply(status=500)]), serve([Reply(status=500)])
    write_pool(first, checker, last)
    solve = Step(worker=A, op=Op.SOLVE)
    verify = Step(worker=B, op=Op.VERIFY, access=(0,))
    mend = Step(worker=C, op=Op.SOLVE, access=(0, 1))
    extract = replace(solve, op=Op.EXTRACT)
    part = replace(solve, text="find the factors")
    async with open_app() as app:
        for whole in (Plan(steps=(solve, verify, mend)), Plan(steps=(solve, verify)), Plan(steps=(extract, verify))):
            run = (await carry(app, whole)).run
            assert run.answer is not None
            assert (run.answer.text, run.worker) == ("thirty-five", "a")
            assert run.ended_early is not None
            app.health.note_success(B)
            app.health.note_success(C)
        for half in (
            Plan(steps=(solve, replace(mend, access=(0,)))),
            Plan(steps=(part, verify, mend)),
            Plan(steps=(extract, verify, mend)),
        ):
            with pytest.raises(ProviderError):
                await carry(app, half)
            app.health.note_success(B)
            app.health.note_success(C)
        poor = replace(TASK, budget=Budget(tokens=1))
        with pytest.raises(BudgetExhausted):
            await carry(app, Plan(steps=(solve, replace(mend, access=(0,)))), poor)
        given = await carry(app, Plan(steps=(solve, verify, mend)), poor)
        assert given.run.ended_early is not None


class Told:
    """A director that has made up its mind beforehand."""

    def __init__(self, *steps: Step | None) -> None:
        self._steps = steps

    async def choose(self, seen: "list[Turn] | tuple[Turn, ...] | Any") -> Step | None:
        return self._steps[len(seen)]


async def take_turns(app: Installation, *steps: Step | None, most: int = 5) -> Answered | Failed:
    decision = await app.runtime.orchestrator.decide(TASK)
    turns = Turns(worker=decision.worker, most=most)
    decision = replace(decision, workflow=turns)
    started = Started(decision=decision, task=TASK, setup=app.runtime.routing.router.setup, director=Told(*steps))
    with suppress(ProviderError):
        await Executor(app.runtime.caller, app.runtime.grading).execute(started)
    assert isinstance(started.recorder.ended, Answered | Failed)
    return started.recorder.ended


async def test_turns_that_fail_return_no_partial_answer(serve: Serve) -> None:
    write_pool(serve([Reply(text=HALF)]), serve([Reply(status=400)]))
    half = Step(worker=A, op=Op.EXTRACT)
    whole = Step(worker=A, op=Op.SOLVE)
    fails = Step(worker=B, op=Op.SOLVE, access=(0,))
    async with open_app() as app:
        for steps in ((half, fails, None), (half, fails, replace(fails, op=Op.TRANSFORM), None)):
            failed = await take_turns(app, *steps)
            assert isinstance(failed, Failed)
            assert failed.run.answer is None
            assert isinstance(failed.error, ProviderError)
        cut = await take_turns(app, half, fails, fails, most=2)
        assert cut.run.answer is None
        kept = await take_turns(app, whole, fails, None)
        assert kept.run.answer is not None
        assert kept.run.ended_early is not None
        chosen = await take_turns(app, half, None)
        assert chosen.run.answer is not None, "the director takes it for the answer, and nothing failed"
        assert chosen.run.ended_early is None


# provenance


async def test_an_answer_reports_its_verdict_its_worker_and_why_it_ended_early(serve: Serve) -> None:
    wrong, other = serve([Reply(text="34")]), serve([Reply(text="33")])
    write_pool(wrong, other)
    async with open_gateway() as (_, address, client):
        wanted = {"workflow": "verified", "check": NUMERIC, "budget_usd": 1.5e-3}
        status, said, headers = await post(address, client, ripieno=wanted)
        assert (status, said["choices"][0]["message"]["content"]) == (200, "34")
        told = said["ripieno"]
        assert "budget is spent" in told["ended_early"]
        assert headers["x-ripieno-ended-early"] == told["ended_early"][:200]
        assert headers["x-ripieno-verdict"] == "numeric 0.00: 34 is not 35"
        assert told["verdicts"] == [
            {"step": "1.check", "worker": "a", "verifier": "numeric", "quality": 0.0, "detail": "34 is not 35"}
        ]
        assert (told["worker"], told["workflow"], told["decision"]) == ("a", "verified", headers["x-request-id"])
        assert told["cost_usd"] == pytest.approx(float(headers["x-ripieno-cost-usd"]))
        async with client.get(f"{address}/v1/runs/{told['decision']}") as found:
            run = await found.json()
        assert (run["ended_early"], run["verdicts"]) == (told["ended_early"], told["verdicts"])
        assert (run["worker"], run["status"]) == ("a", "done")
        body = {"model": "auto", "messages": ASK, "ripieno": wanted, "stream": True}
        async with client.post(f"{address}/v1/chat/completions", json=body) as streamed:
            assert streamed.headers["x-ripieno-ended-early"] == headers["x-ripieno-ended-early"]
            assert streamed.headers["x-ripieno-verdict"] == headers["x-ripieno-verdict"]
            assert '"ended_early":"' in await streamed.text()
        other.script = [Reply(text="35")]
        _, said, headers = await post(address, client, ripieno={"workflow": "verified", "check": NUMERIC})
        assert headers["x-ripieno-verdict"].startswith("numeric 1.00"), "the verdict on the answer that is given"
        assert headers["x-ripieno-worker"] == said["ripieno"]["worker"] == "b"
        assert headers["x-ripieno-why"] == "b answered, in a verified that began with a"
        assert "x-ripieno-ended-early" not in headers
        assert said["ripieno"]["ended_early"] is None


async def test_why_names_the_worker_that_answered(serve: Serve) -> None:
    broken = serve([Reply(status=400, raw=b'{"error": {"message": "no such model", "code": "model_not_found"}}')])
    write_pool(serve([Reply(status=500)]), serve([Reply(text="35")]))
    async with open_gateway() as (app, address, client):
        _, said, headers = await post(address, client)
        assert said["model"] == headers["x-ripieno-worker"] == "b"
        assert headers["x-ripieno-why"] == "b answered in place of a, which failed: server_error"
        app.health.note_success(A)
        async with client.post(
            f"{address}/v1/chat/completions", json={"model": "auto", "messages": ASK, "stream": True}
        ) as response:
            assert response.headers["x-ripieno-why"].startswith("b answered in place of a")
            await response.read()
        app.health.note_success(A)
        _, _, headers = await post(address, client, model="b")
        assert headers["x-ripieno-why"] == "b is the worker that the request names"
    assert not broken.seen


ROUTES = ["/v1/chat/completions", "/v1/messages", "/v1/responses"]


@pytest.mark.parametrize("path", ROUTES)
async def test_each_dialect_reports_provenance_whole_and_in_the_last_event_of_a_stream(serve: Serve, path: str) -> None:
    write_pool(serve([Reply(text="34 it is")]), serve([Reply(text="35")]))
    wanted = {"workflow": "verified", "check": NUMERIC}
    async with open_gateway() as (_, address, client):
        _, said, headers = await post(address, client, path, ripieno=wanted)
        assert said["ripieno"]["worker"] == headers["x-ripieno-worker"] == "b"
        assert [each["quality"] for each in said["ripieno"]["verdicts"]][-1] == 1.0
        for fields in ({"ripieno": wanted}, {}, {"stream_options": {"include_usage": True}}):
            body = {"model": "auto", "messages": ASK, "input": "x", "max_tokens": 50, "stream": True} | fields
            async with client.post(f"{address}{path}", json=body) as response:
                text = await response.text()
            events = [json.loads(line) for line in re.findall(r"^data: (\{.*\})$", text, re.MULTILINE)]
            told = [event.get("ripieno") or event.get("response", {}).get("ripieno") for event in events]
            assert [each for each in told if each] == [told[-1]], "the last event alone"
            assert told[-1]["decision"] == response.headers["x-ripieno-decision"]
            assert told[-1]["ended_early"] is None
            assert bool(told[-1]["verdicts"]) == ("ripieno" in fields)


async def test_official_clients_accept_the_ripieno_field(serve: Serve) -> None:
    write_pool(serve([Reply(text="one two three")]))
    async with open_gateway() as (_, address, _client):
        async with AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(model="auto", messages=ASK)
            assert whole.model_extra is not None
            assert whole.model_extra["ripieno"]["worker"] == "a"
            stream = await client.chat.completions.create(model="auto", messages=ASK, stream=True)
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
            assert chunks[-1].choices[0].finish_reason == "stop", "no chunk without a choice where none was asked for"
            assert (chunks[-1].model_extra or {})["ripieno"]["worker"] == "a"
            response = await client.responses.create(model="auto", input="x")
            assert (response.model_extra or {})["ripieno"]["worker"] == "a"
        async with anthropic.AsyncAnthropic(base_url=address, api_key="none", max_retries=0) as claude:
            message = await claude.messages.create(model="auto", max_tokens=50, messages=ASK)
            assert (message.model_extra or {})["ripieno"]["worker"] == "a"
            async with claude.messages.stream(model="auto", max_tokens=50, messages=ASK) as events:
                assert (await events.get_final_message()).content[0].type == "text"


async def test_a_cached_answer_has_the_same_headers_and_its_own_request_id(serve: Serve) -> None:
    server = serve([Reply(text="35")])
    write_pool(server, extra="[cache]\nanswers = true")
    async with open_gateway() as (app, address, client):
        _, first, fresh = await post(address, client)
        _, again, kept = await post(address, client)
        assert len(server.seen) == 1
        names = {name for name in fresh if name.startswith("x-ripieno")}
        assert {name for name in kept if name.startswith("x-ripieno")} == names | {"x-ripieno-cache"}
        assert kept["x-request-id"] != fresh["x-request-id"]
        assert kept["x-ripieno-decision"] == fresh["x-ripieno-decision"]
        assert (kept["x-ripieno-cost-usd"], kept["x-ripieno-attempts"]) == ("0", "0")
        assert kept["x-ripieno-why"] == "a answered the same request before"
        assert first["ripieno"]["cost_usd"] > again["ripieno"]["cost_usd"] == 0.0
        assert again["ripieno"]["cache"] == "hit"
        assert app.ledger.count("decided") == 1


async def test_answers_that_ended_early_or_with_another_check_are_not_cached(serve: Serve) -> None:
    servers: list[ScriptedServer] = [serve([Reply(text="34")]), serve([Reply(text="35")])]
    write_pool(*servers, extra="[cache]\nanswers = true")
    async with open_gateway() as (_, address, client):
        for _ in range(2):
            early = {"workflow": "verified", "check": NUMERIC, "budget_usd": 1.5e-3}
            _, said, headers = await post(address, client, ripieno=early)
            assert "x-ripieno-cache" not in headers
            assert said["ripieno"]["ended_early"]
        for answer in (34, 35):
            checked = {"workflow": "verified", "check": {"kind": "numeric", "answer": answer}}
            _, said, _ = await post(address, client, ripieno=checked)
            assert said["choices"][0]["message"]["content"] == str(answer)
