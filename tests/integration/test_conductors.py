"""Prompted conductors on real servers: their prompts, their plans and their cost."""

import json
from dataclasses import replace
from typing import Any

from tests.integration.conftest import Serve, open_app, write_pool

from ripieno.domain import Mode, Op, Plan, Solo, Task
from ripieno.testing import ReceivedRequest, Reply

PROMPTED = "[conductor]\nkind = 'prompted'"
TASK = Task.from_text("How tall is the tower, in feet?")


def planned(mode: Mode) -> Task:
    return replace(TASK, objective=replace(TASK.objective, mode=mode))


def read_prompt(request: ReceivedRequest) -> str:
    messages: Any = request.body["messages"]
    return str(messages[-1]["content"])


async def test_a_worker_writes_the_plan_and_its_tokens_count(serve: Serve) -> None:
    def write(request: ReceivedRequest) -> Reply:
        if "response_format" not in request.body:
            return Reply(text="300 feet")
        steps = [{"worker": 0, "op": "extract", "source": "question"}, {"worker": 1, "op": "solve", "source": "all"}]
        return Reply(text=json.dumps({"steps": steps}))

    servers = [serve(write), serve(write)]
    write_pool(*servers, extra=PROMPTED)
    async with open_app() as app:
        answered = await app.runtime.orchestrator.run_detailed(planned(Mode.PLAN))
        plan = answered.decision.workflow
        assert isinstance(plan, Plan)
        assert [step.op for step in plan.steps] == [Op.EXTRACT, Op.SOLVE]
        assert {step.worker for step in plan.steps} == {"a", "b"}
        assert [call.step for call in answered.run.calls] == ["plan", "1", "2"]
        assert answered.run.cost_usd == sum(call.cost_usd or 0 for call in answered.run.calls)
        prompts = [read_prompt(seen) for server in servers for seen in server.seen if "response_format" in seen.body]
        assert len(prompts) == 1
        assert '"How tall is the tower, in feet?"' in prompts[0]
        assert not {"a:", "b:", "scripted"} & set(prompts[0].split()), "workers are told by what they can, not by name"
        recorded = app.ledger.decisions.find(answered.decision.id).decision
        assert recorded.workflow == plan


async def test_an_unreadable_plan_gets_one_more_attempt(serve: Serve) -> None:
    replies = iter(["no", '{"steps": [{"worker": 0, "op": "solve", "source": "question"}]}', "fine"])
    server = serve(lambda seen: Reply(text=next(replies)))
    write_pool(server, extra=PROMPTED)
    async with open_app() as app:
        answered = await app.runtime.orchestrator.run_detailed(planned(Mode.PLAN))
        assert [call.step for call in answered.run.calls] == ["plan", "plan", "1"]
        assert "That is no plan" in read_prompt(server.seen[1])
        replies = iter(["no", "no", "alone"])
        answered = await app.runtime.orchestrator.run_detailed(planned(Mode.PLAN))
        assert isinstance(answered.decision.workflow, Solo)
        assert "no plan was written" in answered.decision.reasons[0]
        assert answered.run.answer is not None
        assert answered.run.answer.text == "alone"
        assert len(answered.run.calls) == 3, "what was tried is paid all the same"


async def test_without_a_plan_one_worker_answers(serve: Serve) -> None:
    failing = serve([Reply(status=500)])
    path = write_pool(failing, serve([Reply(text="from b")]), extra=PROMPTED)
    async with open_app() as app:
        for mode in (Mode.PLAN, Mode.DECOMPOSE):
            app.health.note_success("a")  # type: ignore[arg-type]  # an id
            answered = await app.runtime.orchestrator.run_detailed(planned(mode))
            assert answered.run.worker == "b"
    path.write_text(path.read_text().replace('privacy = "local"', 'privacy = "local"\nis_tool = true'))
    async with open_app() as app:
        for mode in (Mode.PLAN, Mode.DECOMPOSE):
            answered = await app.runtime.orchestrator.run_detailed(planned(mode))
            assert "the author None" in answered.decision.reasons[0]


async def test_the_parts_of_a_task_are_routed_separately_and_merged(serve: Serve) -> None:
    def work(request: ReceivedRequest) -> Reply:
        if "response_format" in request.body:
            parts = [{"text": "find the height", "needs": []}, {"text": "turn it into feet", "needs": [1]}]
            return Reply(text=json.dumps({"parts": parts}))
        return Reply(text="merged" if "final answer of the results" in read_prompt(request) else "part")

    server = serve(work)
    write_pool(server, serve(work))
    async with open_app() as app:
        answered = await app.runtime.orchestrator.run_detailed(planned(Mode.DECOMPOSE))
        plan = answered.decision.workflow
        assert isinstance(plan, Plan)
        assert [(step.op, step.access) for step in plan.steps] == [
            (Op.SOLVE, ()),
            (Op.SOLVE, (0,)),
            (Op.MERGE, (0, 1)),
        ]
        assert answered.run.answer is not None
        assert answered.run.answer.text == "merged"
        assert [call.step for call in answered.run.calls] == ["plan", "1", "2", "3"]


async def test_invalid_parts_leave_the_task_whole(serve: Serve) -> None:
    write_pool(serve([Reply(text="whole")]))
    async with open_app() as app:
        answered = await app.runtime.orchestrator.run_detailed(planned(Mode.DECOMPOSE))
        assert isinstance(answered.decision.workflow, Solo)
        assert len(answered.run.calls) == 2


async def test_a_plan_can_be_shown_before_it_runs(serve: Serve) -> None:
    server = serve([Reply(text='{"steps": [{"worker": 0, "op": "solve", "source": "question"}]}')])
    write_pool(server, extra=PROMPTED)
    async with open_app() as app:
        decision, calls = await app.runtime.orchestrator.preview_plan(planned(Mode.PLAN))
        assert isinstance(decision.workflow, Plan)
        assert len(calls) == len(server.seen) == 1
        assert app.ledger.count("decided") == 0
