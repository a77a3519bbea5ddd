"""`ripieno memory`: remember, recall, look after it, and make conversations short."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import print_json, print_table, say
from ripieno.cli.running import run_app, run_memory
from ripieno.domain.memory import Item, ItemKind, NewItem, ReadStatus, Recall, Receipt, Scope
from ripieno.domain.task import Message, Privacy
from ripieno.errors import DataError, GateRefused, MemoryUnavailable

if TYPE_CHECKING:
    from ripieno.app import Installation, MemoryApp
    from ripieno.memory.compact import Compacted
    from ripieno.memory.extract import Extracted
    from ripieno.memory.memory import MemoryHealth
    from ripieno.memory.sync import Version


@click.group(epilog='\b\nExample:\n  ripieno memory recall "Which database did we choose?"')
def memory() -> None:
    """What was seen and learnt: kept as it was, found by words and meaning, never silently lost."""


@memory.command(epilog='\b\nExample:\n  ripieno memory remember "We deploy on Tuesdays." --kind decision --project web')
@click.argument("text")
@click.option("--kind", type=click.Choice([kind.value for kind in ItemKind]), default="fact", show_default=True)
@click.option("--author", default="", help="Who said it, or whom it is about.")
@click.option("--thread", default="", help="The conversation that it belongs to.")
@click.option("--project", default="", help="Whose memory it is; that of all if not given.")
@click.option("--user", default="", help="Likewise.")
@click.option("--privacy", type=click.Choice([each.value for each in Privacy]), default="public", show_default=True,
              help="How far it may travel.")  # fmt: skip
@click.option("--supersedes", metavar="ID", help="The item that it takes the place of.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def remember(
    config: Path | None,
    *,
    text: str,
    kind: str,
    author: str,
    thread: str,
    project: str,
    user: str,
    privacy: str,
    supersedes: str | None,
    as_json: bool,
) -> None:
    """Keep TEXT; the id is printed once it is on disk."""
    if not text.strip():
        raise click.UsageError("there is nothing to remember: the text is empty")
    item = NewItem(
        text=text,
        kind=ItemKind(kind),
        author=author,
        thread=thread,
        scope=Scope(project=project, user=user),
        source="cli",
        privacy=Privacy(privacy),
        supersedes=supersedes,
    )

    async def work(app: MemoryApp) -> Receipt:
        return (await app.memory.remember([item]))[0]

    receipt = run_memory(config, work)
    if as_json:
        told = {"id": receipt.id, "place": receipt.place, "is_new": receipt.is_new}
        print_json(told | ({"secrets_removed": receipt.removed} if receipt.removed else {}))
    else:
        click.echo(receipt.id)
    if receipt.removed:
        say(f"{receipt.removed} secrets were taken out of the text")


@memory.command(epilog='\b\nExample:\n  ripieno memory recall "When do we deploy?" --project web')
@click.argument("question")
@click.option("--most", type=click.IntRange(1, 200), default=10, show_default=True, help="Items that are wanted.")
@click.option("--project", default="", help="Whose memory; that of all if not given.")
@click.option("--user", default="", help="Likewise.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice([kind.value for kind in ItemKind]))
@click.option("--reach", type=click.Choice([each.value for each in Privacy]),
              help="How far the question and what is recalled may travel; all is shown if not given.")  # fmt: skip
@click.option(
    "--as-of", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="What was known and true then, UTC."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def recall(
    config: Path | None,
    *,
    question: str,
    most: int,
    project: str,
    user: str,
    kinds: tuple[str, ...],
    reach: str | None,
    as_of: datetime | None,
    as_json: bool,
) -> None:
    """Find what fits QUESTION. An outage says so, and ends with code 3; it never looks like an empty memory."""

    async def work(app: MemoryApp) -> Recall:
        return await app.memory.recall(
            question,
            scope=Scope(project=project, user=user),
            most=most,
            reach=Privacy(reach) if reach is not None else None,
            as_of=as_of.replace(tzinfo=UTC).timestamp() if as_of is not None else None,
            kinds=[ItemKind(kind) for kind in kinds],
        )

    found = run_memory(config, work)
    if as_json:
        print_json(describe_recall(found))
    else:
        _show_recall(found)
    if found.status is ReadStatus.UNAVAILABLE:
        raise MemoryUnavailable(found.detail, hint="`ripieno memory status` says more")


@memory.command(epilog="\b\nExample:\n  ripieno memory history 3f2a91")
@click.argument("item")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def history(config: Path | None, *, item: str, as_json: bool) -> None:
    """Show ITEM with all that it superseded, and all that superseded it."""

    async def work(app: MemoryApp) -> list[Item]:
        return await app.memory.history(item)

    found = run_memory(config, work)
    if as_json:
        print_json({"items": [describe_item(each) for each in found]})
        return
    rows = [[each.id[:12], _day(each.recorded_at), _day(each.valid_from), each.text or "(erased)"] for each in found]
    print_table(("item", "learnt", "true from", "text"), rows)


@memory.command(epilog="\b\nExample:\n  ripieno memory forget 3f2a91c0")
@click.argument("item")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def forget(config: Path | None, *, item: str, as_json: bool) -> None:
    """Erase the text of ITEM and of all that was made from it; its digest stays as proof."""

    async def work(app: MemoryApp) -> tuple[str, tuple[str, ...]]:
        erased = await app.memory.forget(item)
        return erased.digest, erased.derived

    digest, derived = run_memory(config, work)
    if as_json:
        print_json({"id": item, "digest": digest, "derived": list(derived)})
    else:
        click.echo(digest)
        say(f"erased, with {len(derived)} items made from it")


@memory.command(epilog="\b\nExample:\n  ripieno memory status --beat")
@click.option("--beat", is_flag=True, help="Write a marked item and read it back first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def status(config: Path | None, *, beat: bool, as_json: bool) -> None:
    """Tell how memory is: its canary, its watermarks, and what is in quarantine."""

    async def work(app: MemoryApp) -> MemoryHealth:
        if beat and not await app.memory.beat():
            say("the canary did not come back")
        return await app.memory.health()

    found = run_memory(config, work)
    if as_json:
        print_json(describe_health(found))
    else:
        _show_health(found)
    if found.pulse != "ok":
        raise GateRefused(f"memory is {found.pulse.value}", hint=found.detail or "see the sources above")


@memory.command(epilog="\b\nExample:\n  ripieno memory rebuild")
@click.pass_obj
def rebuild(config: Path | None) -> None:
    """Throw all projections away, words and vectors, and make them anew from the items."""

    async def work(app: MemoryApp) -> int:
        return await app.memory.rebuild()

    say(f"{run_memory(config, work)} items are indexed")


@memory.command(epilog="\b\nExample:\n  ripieno memory sync notes notes.jsonl")
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--bound", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help="Share of its items that a sync may take away.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def sync(config: Path | None, *, source: str, file: Path, bound: float, as_json: bool) -> None:
    """Take the whole content of SOURCE from FILE, one JSON item a line; what it does not hold any more is retired.

    A sync that is empty, broken or loses more than --bound is put into quarantine, and the last good version stays.
    """
    listed = read_items(file)

    async def work(app: MemoryApp) -> Version:
        return await app.memory.sync(source, listed, bound=bound)

    version = run_memory(config, work)
    if as_json:
        print_json({"source": source, "nth": version.nth, "status": version.status, "reason": version.reason})
    else:
        say(f"{source}, sync {version.nth}: {version.items} items, {version.status.value} {version.reason}".rstrip())
    if version.status == "quarantined":
        raise GateRefused(
            f"the sync of {source!r} is in quarantine: {version.reason}", hint="the version before it stays"
        )


@memory.command("import", epilog="\b\nExample:\n  ripieno memory import git . --project web")
@click.argument("kind", type=click.Choice(["chat", "claude-code", "codex", "shell", "git", "folder"]))
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--project", default="", help="Whose memory it becomes; that of all if not given.")
@click.option("--user", default="", help="Likewise.")
@click.option("--privacy", type=click.Choice([each.value for each in Privacy]), default="local", show_default=True,
              help="How far it may travel.")  # fmt: skip
@click.option(
    "--watch", type=click.FloatRange(min=1), metavar="SECONDS", help="Look again every so often, until Ctrl-C."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def import_(
    config: Path | None,
    *,
    kind: str,
    path: Path,
    project: str,
    user: str,
    privacy: str,
    watch: float | None,
    as_json: bool,
) -> None:
    """Take in what is written at PATH, from where the last import ended; the same thing is kept once.

    Kinds: chat logs as JSON lines, sessions of Claude Code or Codex, shell history, git log, a folder of texts.
    """
    from ripieno.memory.importers import Import

    request = Import(path=path, scope=Scope(project=project, user=user), privacy=Privacy(privacy))

    async def work(app: MemoryApp) -> int:
        new = await app.memory.import_source(kind, request)
        while watch is not None:
            say(f"{new} items so far")
            await asyncio.sleep(watch)
            new += await app.memory.import_source(kind, request)
        return new

    new = run_memory(config, work)
    if as_json:
        print_json({"new": new})
    else:
        say(f"{new} new items")


@memory.command(epilog="\b\nExample:\n  ripieno memory compact conversation.json")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--worker", help="Who writes prose beside the facts: a worker, or `auto`; without, the facts stand alone."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def compact(config: Path | None, *, file: Path, worker: str | None, as_json: bool) -> None:
    """Make the conversation in FILE short: a JSON array of messages, or one a line.

    Decisions in force, rules, tasks, failures, identifiers, dates, amounts and the latest ask are always kept; secrets
    are not. Where the gate does not hold, nothing is printed, and the command ends with code 5.
    """
    from ripieno.memory.compact import compact as shorten

    turns = read_turns(file)

    async def work(app: Installation) -> Compacted:
        if worker != "auto":
            await _find_worker(app, worker)
        return await shorten(turns, write=partial(app.runtime.orchestrator.generate_text, worker=worker))

    found = run_app(config, work) if worker is not None else asyncio.run(shorten(turns, write=None))
    if as_json:
        print_json(
            {
                "status": found.status,
                "text": found.text,
                "words": found.words,
                "words_before": found.words_before,
                "marks": found.marks,
                "reason": found.reason,
            }
        )
    elif found.text:
        click.echo(found.text)
        say(f"{found.words} of {found.words_before} words, {found.marks} identifiers, dates and amounts kept")
    if found.status != "ok":
        raise GateRefused(f"nothing was made short: {found.reason}", hint="the conversation stays as it is")


@memory.command(epilog="\b\nExample:\n  ripieno memory extract --worker auto")
@click.option(
    "--worker", default="auto", show_default=True, help="Who reads: a worker, or `auto` for the router's choice."
)
@click.option("--most", type=click.IntRange(1), default=1000, show_default=True, help="Turns to read.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def extract(config: Path | None, *, worker: str, most: int, as_json: bool) -> None:
    """Have facts extracted from what was said since the last time, as further keys to it.

    What was said stays as it was; a fact that names what its turns do not is left out.
    """
    from ripieno.app.remembering import extract_facts

    async def work(app: Installation) -> Extracted:
        if worker != "auto":
            await _find_worker(app, worker)
        done = await extract_facts(app, worker=worker, most=most)
        if done is None:
            raise MemoryUnavailable("another process extracts facts now", hint="wait for its end")
        return done

    done = run_app(config, work)
    if as_json:
        print_json({"turns": done.turns, "facts": done.facts, "refused": done.refused, "failed": done.failed})
    else:
        say(
            f"{done.turns} turns read: {done.facts} facts kept, {done.refused} refused, {done.failed} answers were none"
        )


def read_items(file: Path) -> list[NewItem]:
    """Items of a file, one JSON object a line.

    Raises:
        DataError: a line is none.
    """
    import msgspec

    from ripieno.gateway.memories import RememberRequest

    listed = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            given = msgspec.convert({"kind": "episode"} | json.loads(line), RememberRequest)
            listed.append(given.make(source=""))
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise DataError(f"no item: {error}", path=str(file), place=f"line {number}") from error
    return listed


def read_turns(file: Path) -> list[Message]:
    """Messages of a file: an array, an object with `messages`, or one a line.

    Raises:
        DataError: it holds none.
    """
    text = file.read_text(encoding="utf-8")
    try:
        raw = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
        if len(raw) == 1 and "messages" in raw[0]:
            raw = raw[0]["messages"]
        return [Message(role=str(each["role"]), content=each.get("content")) for each in raw]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"no conversation: {error}", path=str(file), hint="a JSON array of messages") from error


async def _find_worker(app: Installation, name: str | None) -> str:
    if name not in app.runtime.pool:
        raise click.UsageError(f"no worker is called {name!r}")
    return app.runtime.pool[name].id  # type: ignore[index]  # it is in the pool


def describe_recall(found: Recall) -> dict[str, object]:
    """A read as JSON."""
    return {
        "status": found.status,
        "support": found.support,
        "age_s": found.age_s,
        "synced_at": found.synced_at,
        "detail": found.detail,
        "items": [
            {"score": each.score, "because": list(each.because)} | describe_item(each.item) for each in found.items
        ],
    }


def describe_item(item: Item) -> dict[str, object]:
    """An item as JSON."""
    from ripieno.gateway.memories import describe_item as describe

    return describe(item) | {"project": item.scope.project, "user": item.scope.user}


def describe_health(found: MemoryHealth) -> dict[str, object]:
    """Health as JSON."""
    return {
        "status": found.pulse,
        "items": found.items,
        "newest_at": found.newest_at,
        "unembedded": found.unembedded,
        "beat_at": found.beat_at,
        "sources": [{"source": s.source, "seen_at": s.seen_at, "committed_at": s.committed_at} for s in found.sources],
        "stalled": list(found.stalled),
        "quarantined": [{"source": v.source, "nth": v.nth, "reason": v.reason} for v in found.quarantined],
        "detail": found.detail,
    }


def _show_recall(found: Recall) -> None:
    rows = [
        [each.item.id[:12], f"{each.score:.2f}", each.item.kind.value, _day(each.item.happened_at), _tell(each.item)]
        for each in found.items
    ]
    if rows:
        print_table(("item", "score", "kind", "when", "text"), rows)
    age = "nothing was ever recorded" if found.age_s is None else f"newest item {found.age_s:.0f} s old"
    say(f"{found.status.value}, support {found.support:.0%}; {age} {found.detail}".rstrip())


def _show_health(found: MemoryHealth) -> None:
    rows = [[each.source, _day(each.seen_at), _day(each.committed_at)] for each in found.sources]
    if rows:
        print_table(("source", "seen", "committed"), rows)
    for version in found.quarantined:
        say(f"in quarantine: {version.source}, sync {version.nth}: {version.reason}")
    say(f"{found.pulse.value}: {found.items} items, {found.unembedded} without a vector {found.detail}".rstrip())


def _tell(item: Item) -> str:
    text = " ".join(item.text.split())
    told = f"{item.author}: {text}" if item.author else text
    return told if len(told) <= 100 else f"{told[:99]}…"


def _day(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M")
