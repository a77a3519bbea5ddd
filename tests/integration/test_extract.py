"""Workers for memory: extracted facts, and summaries of long conversations."""

import json
from typing import Any

import pytest
from click.testing import CliRunner
from tests.integration.conftest import Serve, open_app, write_pool

from ripieno.app.remembering import beat_memory, extract_facts, extract_new_facts
from ripieno.cli.main import cli
from ripieno.domain import Message, Privacy, Task
from ripieno.domain.memory import ItemKind, NewItem, Scope
from ripieno.errors import InvalidTask, NoEligibleWorker, ProviderError
from ripieno.loops import Loop, Loops
from ripieno.memory.compact import END
from ripieno.memory.extract import extract, read_onward
from ripieno.testing import ReceivedRequest, Reply

WEB = Scope(project="web")
TURNS = (
    ("ada", "We take Postgres for the shop, from 2026-12-01 on."),
    ("ben", "Good. My sister Eva lives in Oslo, by the way."),
    ("ada", "Use password=hunter2-and-more-3141 there, and do not tell."),
)
FACTS = [
    {"fact": "Ada takes Postgres for the shop from 2026-12-01 on.", "about": "ada", "turns": [1]},
    {"fact": "Ben's sister Eva lives in Oslo.", "about": "ben", "turns": [2, 2]},
    {"fact": "Ada takes Postgres from 2027-01-01 on.", "about": "ada", "turns": [1]},
    {"fact": "Carol breeds marvellous penguins somewhere.", "about": "carol", "turns": [1]},
    {"fact": "Nobody said this.", "about": "x", "turns": [9]},
    {"fact": "", "about": "x", "turns": [1]},
    "nonsense",
]


def say(items: tuple[tuple[str, str], ...] = TURNS, *, thread: str = "monday", **fields: Any) -> list[NewItem]:
    return [NewItem(text=text, author=author, thread=thread, scope=WEB, **fields) for author, text in items]


async def test_facts_are_additional_keys_and_unsupported_ones_are_left_out(serve: Serve) -> None:
    server = serve([Reply(text=f"Here they are:\n{json.dumps(FACTS)}")])
    write_pool(server)
    async with open_app() as app:
        receipts = await app.memory.remember(say())
        done = await extract_facts(app, worker="auto", most=100)
        assert done is not None
        assert (done.turns, done.facts, done.refused, done.failed) == (3, 2, 5, 0)
        found = await app.memory.recall("Where does the sister of Ben live?", scope=WEB)
        assert found.items[0].item.id == receipts[1].id, "what is given is what was said"
        (fact,) = await app.memory.get(found.items[0].because)
        assert (fact.text, fact.author, fact.kind) == ("Ben's sister Eva lives in Oslo.", "ben", ItemKind.FACT)
        assert fact.derived_from == (receipts[1].id,)
        asked = len(server.seen)
        again = await extract_facts(app, worker="auto", most=100)
        assert again is not None
        assert (again.turns, len(server.seen)) == (0, asked), "nothing is read twice"
        assert "hunter2" not in json.dumps(server.seen[0].body), "secrets are taken out before anybody reads"
        decision = app.ledger.decisions.last()
        assert decision is not None
        assert app.ledger.decisions.find(decision).decision.kind == "extract", "it was routed, and is in the record"
        await app.memory.forget(receipts[1].id)
        assert (await app.memory.get([fact.id]))[0].erased_at is not None, "it goes with what it was made from"


async def test_an_invalid_answer_is_counted_and_an_extraction_resumes_after_an_outage(serve: Serve) -> None:
    replies = iter(
        [Reply(text="I cannot."), Reply(text="[1, 2"), Reply(status=400), Reply(text="[]"), Reply(text="[]")]
    )
    write_pool(serve(lambda seen: next(replies)))
    async with open_app() as app:
        for thread in ("one", "two", "three", "four"):
            await app.memory.remember(say(thread=thread))
        first = await extract_facts(app, worker="a", most=6)
        assert first is not None
        assert (first.turns, first.failed) == (6, 2), "a batch of each thread"
        with pytest.raises(ProviderError):
            await extract_facts(app, worker="a", most=100)
        then = await extract_facts(app, worker="a", most=100)
        assert then is not None
        assert (then.turns, then.failed) == (6, 0)


async def test_an_extraction_resumes_after_an_outage_without_repeated_calls(serve: Serve) -> None:
    replies = iter([Reply(text="[]"), Reply(text="[]"), Reply(status=400), Reply(text="[]"), Reply(text="[]")])
    server = serve(lambda seen: next(replies))
    write_pool(server)
    async with open_app() as app:
        for thread in ("one", "two", "three", "four"):
            await app.memory.remember(say(thread=thread))
        with pytest.raises(ProviderError):
            await extract_facts(app, worker="a", most=100)
        then = await extract_facts(app, worker="a", most=100)
        assert then is not None
        assert (then.turns, len(server.seen)) == (6, 5), "the third batch and the fourth"


async def test_private_turns_go_only_to_workers_within_their_boundary(serve: Serve) -> None:
    path = write_pool(serve([Reply(text=json.dumps(FACTS[:2]))]))
    path.write_text(path.read_text().replace('privacy = "local"', 'privacy = "public"'))
    async with open_app() as app:
        await app.memory.remember(say(privacy=Privacy.LOCAL))
        with pytest.raises(NoEligibleWorker):
            await extract_facts(app, worker="auto", most=100)
    path.write_text(path.read_text().replace('privacy = "public"', 'privacy = "local"'))
    async with open_app() as app:
        done = await extract_facts(app, worker="auto", most=100)
        assert done is not None
        assert done.facts == 2
        seen = await app.memory.recall("Eva Oslo sister", scope=WEB, reach=Privacy.PUBLIC)
        assert seen.items == (), "facts are as private as their turns"


async def test_a_running_gateway_extracts_and_its_canary_beats(serve: Serve) -> None:
    write_pool(serve([Reply(text=json.dumps(FACTS[:1]))]), extra="[memory]\nextract_worker = 'auto'")
    async with open_app() as app:
        await app.memory.remember(say())
        async with Loops() as loops:
            loops.start(Loop("memory", every_s=0.01, clock=app.clock), lambda: beat_memory(app))
            loops.start(Loop("extraction", every_s=0.01, clock=app.clock), lambda: extract_new_facts(app))
            while not (await app.memory.recall("Postgres shop", scope=WEB)).items[0].because:
                pass
            while (await app.memory.health()).beat_at is None:
                pass


def test_the_command_extracts_and_reports(serve: Serve) -> None:
    write_pool(serve([Reply(text=json.dumps(FACTS))]))
    runner = CliRunner()
    for author, text in TURNS:
        made = runner.invoke(cli, ["memory", "remember", text, "--kind", "episode", "--author", author])
        assert made.exit_code == 0
    ran = runner.invoke(cli, ["memory", "extract", "--worker", "a", "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout) == {"turns": 3, "facts": 2, "refused": 5, "failed": 0, "skipped": 0}
    assert isinstance(runner.invoke(cli, ["memory", "extract", "--worker", "zz"]).exception, InvalidTask)


TALK = "Let me look at this for a while, and think about what we could do with the old orders of the shop. " * 6
PROSE = (
    "They looked at the old orders of the shop for a while, and thought about what could be done with them; nothing "
    f"about the orders was decided yet.\n{END}"
)


def converse(turns: int) -> Task:
    said = [
        Message(role="user" if place % 2 == 0 else "assistant", content=f"{TALK} {place}") for place in range(turns)
    ]
    return Task(messages=tuple(said))


async def test_a_summary_is_written_once_per_beginning_by_its_own_worker(serve: Serve) -> None:
    def answer(request: ReceivedRequest) -> Reply:
        is_writing = "You shorten a conversation" in json.dumps(request.body["messages"])
        return Reply(text=PROSE if is_writing else "fine")

    writer, other = serve(answer), serve([Reply(text="fine")])
    write_pool(other, writer, extra="[memory]\ncompact_words = 300\ncompact_worker = 'b'")
    async with open_app() as app:
        first = await app.runtime.orchestrator.run_detailed(converse(13))
        assert any("older turns were compacted" in reason for reason in first.decision.reasons)
        asked: Any = (writer.seen + other.seen)[-1].body["messages"]
        shown = json.dumps([seen.body["messages"] for seen in (*writer.seen, *other.seen)])
        assert "nothing about the orders was decided yet" in shown
        assert asked
        written = [seen for seen in writer.seen if "You shorten" in json.dumps(seen.body)]
        assert len(written) == 1
        await app.runtime.orchestrator.run_detailed(converse(15))
        written = [seen for seen in writer.seen if "You shorten" in json.dumps(seen.body)]
        assert len(written) == 1, "two turns later the shortened part is the same, and at hand"
        kinds = [stored.entry.decision.kind for stored in app.ledger.decisions.latest(9)]  # type: ignore[union-attr]  # decisions
        assert kinds.count("compact") == 1


async def test_without_a_summary_the_conversation_stays_whole(serve: Serve) -> None:
    def answer(request: ReceivedRequest) -> Reply:
        return Reply(status=400) if "You shorten" in json.dumps(request.body["messages"]) else Reply(text="fine")

    server = serve(answer)
    write_pool(server, extra="[memory]\ncompact_words = 300\ncompact_worker = 'auto'")
    async with open_app() as app:
        done = await app.runtime.orchestrator.run_detailed(converse(13))
        assert any("older turns were not compacted" in reason for reason in done.decision.reasons)
        assert len(server.seen[-1].body["messages"]) == 13  # type: ignore[arg-type]  # a list


async def test_extraction_reads_at_most_the_given_turns(serve: Serve) -> None:
    write_pool(serve())
    async with open_app() as app:
        await app.memory.remember(say() * 10)

        async def write(task: Task, scope: Scope) -> str:
            return "[]"

        done = await extract(app.memory, write, most=7)
        assert done.turns == 7
        rest = read_onward(app.memory.store, most=100)
        assert len(rest) == 23
        assert rest[0].place == 8
