"""Reports on a ledger of traffic: fallbacks, waste, tools and keys."""

from dataclasses import replace

import pytest
from tests.integration.conftest import Serve, open_app, write_pool

from ripieno.app.feedback import record_feedback
from ripieno.domain import (
    Cascade,
    Judged,
    Message,
    Mode,
    Op,
    Plan,
    Solo,
    Step,
    Task,
    Verdict,
    WorkerId,
)
from ripieno.domain.conversation import Text, ToolCall, ToolResult
from ripieno.domain.grader import Agreement
from ripieno.errors import InvalidTask
from ripieno.evaluate.questions import answer
from ripieno.learn.logs import name_step, observe, read_tools
from ripieno.testing import Reply


def with_tool(result: str) -> Task:
    return Task(
        messages=(
            Message(role="user", content="Look it up."),
            Message(role="assistant", content=(ToolCall(id="c1", name="search"),)),
            Message(role="tool", content=(ToolResult(call="c1", content=(Text(text=result),)),)),
        )
    )


async def test_what_traffic_leaves_in_the_ledger_is_answered_from(serve: Serve) -> None:
    failing, good = serve([Reply(status=500)]), serve([Reply(text="fine")])
    write_pool(failing, good)
    async with open_app() as app:
        for place in range(48):
            task = (
                with_tool("Error: no such page" if place % 2 else "a page") if place % 4 < 2 else Task.from_text("Hi")
            )
            _, run = await app.runtime.orchestrator.run(task)
            quality = float(place % 4 != 1)
            await app.ledger.append(Judged(run=run.id, verdict=Verdict(verifier="user", quality=quality)))
        rows = observe(app.ledger)
        assert len(rows) == 48
        assert len(observe(app.ledger, last=10)) == 10
        found = answer(rows)
    assert (found.decisions, found.judged) == (48, 48)
    fell_back = [row for row in rows if len(row.calls) == 2]
    assert fell_back
    assert {(row.calls[0].worker, row.calls[0].failure, row.calls[1].worker) for row in fell_back} == {
        ("a", "server_error", "b")
    }
    assert not any(row.is_realised for row in fell_back), "the choice itself did not answer"
    assert found.fallbacks == (), "a breaker opens long before there is evidence"
    assert sum(spend.runs for spend in found.workers) == 48
    kind = found.kinds[0]
    assert kind.accepted is None
    assert kind.judged == 48, "two short of enough"
    assert kind.wasted > 0.0
    assert found.thin["overqualified"] == "not enough evidence: 48 of 50 judged"
    tool_rows = [row for row in rows if row.tools]
    assert {row.tools for row in tool_rows} == {("search",)}
    assert sum(bool(row.faults) for row in rows) == 12


async def test_workflows_named_workers_corrections_and_tool_calls_are_counted_too(serve: Serve) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {
        "type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}}}  # fmt: skip
    calls = [("add", '{"a": 1}'), ("add", '{"a": "one"}'), ("add", "not JSON"), ("sub", "{}")]
    message = {"tool_calls": [
        {"id": str(place), "type": "function", "function": {"name": name, "arguments": given}}
        for place, (name, given) in enumerate(calls)
    ]}  # fmt: skip
    write_pool(serve([Reply(text="one two three four", message=message)]), serve([Reply(text="other")]))
    async with open_app() as app:
        objective = replace(app.runtime.make_objective(), workers=("a",))
        task = replace(Task.from_text("Add.", objective=objective), tools=(tool,))
        decision, _ = await app.runtime.orchestrator.run(task)
        await record_feedback(app, decision.id, correction="one two three five")
        with pytest.raises(InvalidTask, match="what the answer was worth"):
            await record_feedback(app, decision.id)
        vote = replace(app.runtime.make_objective(), mode=Mode.VOTE)
        await app.runtime.orchestrator.run(Task.from_text("Add again.", objective=vote))
        rows = observe(app.ledger)
    assert len(rows) == 2
    solo, several = rows
    assert (solo.tool_calls, solo.bad_tool_calls) == (4, 3)
    assert (solo.edited, solo.quality) == (0.25, 0.75)
    assert (solo.author, solo.is_solo, solo.is_realised) == ("a", True, True)
    assert not several.is_solo
    assert set(several.step_kinds.values()) == {"ensemble"}
    found = answer(rows)
    profile = next(each for each in found.profiles if each.worker == "a")
    assert profile.bad_tool_calls.count == 8, "those of the vote's answer, too"
    assert profile.bad_tool_calls.share is None, "too few to say"
    assert profile.corrected.count == 1
    assert profile.accepted[0].count == 1
    assert [use.step for use in found.steps] == ["ensemble"] * len(found.steps)
    assert sum(spend.runs for spend in found.workers) == 2


def test_steps_are_named_by_what_they_do() -> None:
    a, b = WorkerId("a"), WorkerId("b")
    plan = Plan(steps=(Step(worker=a, op=Op.EXTRACT), Step(worker=b, op=Op.SOLVE, access=(0,))))
    assert [name_step(plan, step) for step in ("1", "2", "3", "plan", "")] == ["extract", "solve", "plan", "plan", ""]
    cascade = Cascade(stages=(a, b), check=Agreement(peer=b))
    assert [name_step(cascade, step) for step in ("1", "1.check", "1.check.1", "2")] == [
        "stage 1", "check", "check", "stage 2"
    ]  # fmt: skip
    assert name_step(Solo(worker=a), "1") == ""


def test_results_of_tools_are_read_by_their_calls() -> None:
    assert read_tools(with_tool("Traceback (most recent call last)")) == (("search",), ("search",))
    assert read_tools(with_tool("three pages")) == (("search",), ())
    orphan = Task(messages=(Message(role="tool", content=(ToolResult(call="c1", content=(Text(text="timed out"),)),)),))
    assert read_tools(orphan) == (("unknown",), ("unknown",))
    assert read_tools(Task.from_text("plain")) == ((), ())
