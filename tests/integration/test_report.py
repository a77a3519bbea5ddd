"""Reports on a ledger as traffic leaves it: fallbacks, waste, tools and keys."""

from tests.integration.conftest import Serve, open_app, write_pool

from ripieno.domain import Judged, Message, Task, Verdict
from ripieno.evaluate.questions import answer
from ripieno.learn.logs import observe, read_tools
from ripieno.testing import Reply


def with_tool(result: str) -> Task:
    call = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    return Task(
        messages=(
            Message(role="user", content="Look it up."),
            Message(role="assistant", content=None, extra={"tool_calls": [call]}),
            Message(role="tool", content=result, extra={"tool_call_id": "c1"}),
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
            _, run = await app.orchestrator.handle(task)
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


def test_results_of_tools_are_read_by_their_calls() -> None:
    assert read_tools(with_tool("Traceback (most recent call last)")) == (("search",), ("search",))
    assert read_tools(with_tool("three pages")) == (("search",), ())
    orphan = Task(messages=(Message(role="tool", content="timed out"),))
    assert read_tools(orphan) == (("unknown",), ("unknown",))
    assert read_tools(Task.from_text("plain")) == ((), ())
