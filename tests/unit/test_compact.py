"""Compaction: what must be kept, what must not, and a check of each result."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ripieno.domain import Message, Task
from ripieno.errors import ProviderUnreachable
from ripieno.memory.compact import END, compact
from ripieno.memory.facts import find_facts
from ripieno.memory.redact import redact

NOISE = "\n".join(f"2027-03-0{nth}T10:00:00Z INFO job={nth}f{nth}ab handled in {nth} ms" for nth in range(1, 9))
SECRET = "sk-" + "0123456789abcdef" * 2
TALK = [
    Message(role="user", content="Could you look at the shop again? I lost the thread. " * 6),
    Message(role="assistant", content="Decision: the search page will use Lucene."),
    Message(
        role="tool", content=f"{NOISE}\n2027-03-09T11:00:00Z ERROR Lucene on search page: E4711\nenv: API_KEY={SECRET}"
    ),
    Message(role="assistant", content="Tried Lucene with plugins: it failed with E4711. Do not try that again."),
    Message(role="user", content="Never deploy the shop on a Friday. The budget is $1,250.00."),
    Message(role="assistant", content="To do T-12: rewrite the search page.\nTo do T-15: document the mail gateway."),
    Message(role="user", content="Change of plan: the search page will use Tantivy instead of Lucene."),
    Message(
        role="assistant",
        content="SHOP-4431 is mended in 0f3ac9d, file src/search/index_2.py. Fine weather today.",
    ),
    Message(role="assistant", content="T-15 is done. The release must be out by 2027-04-01."),
    Message(role="user", content="Please draft the note for Ines."),
]
CHAT = Message(role="assistant", content="Let me look at that now, it should not take long. " * 30)
PROSE = (
    "The search page of the shop was moved to another engine, as the first one failed with plugins; the release is "
    f"prepared, the budget stands, and the note on how to deploy the shop is still to be written.\n{END}"
)
OTHER = (
    "The orchestra rehearsed Mahler's symphony; violins entered early, trumpets waited, the conductor smiled, audience "
    f"and musicians applauded warmly, and everybody bowed gracefully afterwards, twice.\n{END}"
)


async def test_compaction_keeps_each_important_fact_once_and_drops_the_rest() -> None:
    done = await compact(TALK)
    assert done.status == "ok"
    for kept in (
        "Tantivy instead of Lucene",
        "Never deploy the shop on a Friday.",
        "$1,250.00",
        "To do T-12: rewrite the search page.",
        "Finished: T-15",
        "failed with E4711. Do not try that again.",
        "SHOP-4431",
        "0f3ac9d",
        "src/search/index_2.py",
        "2027-04-01",
        "Latest ask: Please draft the note for Ines.",
    ):
        assert done.text.count(kept) == 1, kept
    for gone in ("the search page will use Lucene.", SECRET, "handled in", "Fine weather", "lost the thread"):
        assert gone not in done.text, gone
    assert done.words < 0.6 * done.words_before
    assert done.marks >= 7


async def test_facts_survive_three_compactions_and_later_turns_override() -> None:
    context = TALK
    for more in ("To do T-20: call Ines.", "T-12 is closed.", "Decision: the search page will use Solr."):
        said = [CHAT, Message(role="assistant", content=more), Message(role="user", content="Go on.")]
        done = await compact([*context, *said])
        assert done.status == "ok", done.reason
        context = [Message(role="assistant", content=done.text)]
    facts = find_facts(context)
    assert facts.tasks == {"T-20": "To do T-20: call Ines."}
    assert facts.done == ["T-15", "T-12"]
    assert facts.decisions == ["Decision: the search page will use Solr."]
    assert "0f3ac9d" in context[0].text


async def test_a_mention_does_not_reopen_a_finished_task() -> None:
    facts = find_facts([*TALK, Message(role="assistant", content="To do T-15: document the mail gateway.")])
    assert list(facts.tasks) == ["T-12"]


async def written(text: str) -> str:
    return text


async def hang(task: Task) -> str:
    await asyncio.Event().wait()
    return ""


async def break_off(task: Task) -> str:
    raise ProviderUnreachable("no connection", worker="w")


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda task: written(""), "empty"),
        (lambda task: written("  \n\t "), "empty"),
        (lambda task: written(f"# Goal\n# State\n# Next\n{END}"), "headings"),
        (lambda task: written(PROSE[: len(PROSE) // 2]), "cut off"),
        (lambda task: written(OTHER), "something else"),
        (lambda task: written(PROSE.replace("another engine", "engine X-99")), "names 'X-99'"),
        (lambda task: written(PROSE.replace("another engine", "the search page " * 60)), "not short enough"),
        (break_off, "no connection"),
        (hang, "no summary within"),
    ],
)  # fmt: skip
async def test_an_invalid_summary_is_left_out_and_the_facts_stand_alone(
    write: Callable[[Task], Awaitable[str]], told: str
) -> None:
    before = [(turn.role, turn.content) for turn in TALK]
    done = await compact(TALK, write=write, write_s=0.2)
    assert done.status == "ok"
    assert done.text == (await compact(TALK)).text
    assert told in done.left_out
    assert done.is_temporary == (told == "no connection")
    assert [(turn.role, turn.content) for turn in TALK] == before


async def test_the_summary_precedes_the_facts_without_secrets() -> None:
    asked: list[Task] = []

    async def write(task: Task) -> str:
        asked.append(task)
        return PROSE.replace("the budget stands", f"the budget stands with password={SECRET}")

    done = await compact([*TALK, CHAT], write=write)
    assert done.status == "ok", done.reason
    assert done.text.startswith("The search page of the shop was moved")
    assert "[secret removed]" in done.text
    assert SECRET not in done.text
    assert SECRET not in asked[0].text
    assert asked[0].kind == "compact"


def test_redaction_removes_secrets_and_keeps_the_rest() -> None:
    assert redact(f"use {SECRET} here") == "use [secret removed] here"
    assert redact("commit 0f3ac9d for SHOP-4431") == "commit 0f3ac9d for SHOP-4431"
    assert "hunter22" not in redact("password: hunter22")


async def test_a_conversation_without_facts_is_not_compacted() -> None:
    assert (await compact([Message(role="assistant", content="Fine.")])).reason == "the compaction would be empty"
