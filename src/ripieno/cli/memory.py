"""`ripieno memory`: store and find items, check memory, and compact conversations."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.memory_files import read_items, read_turns
from ripieno.cli.options import prints_json
from ripieno.cli.output import print_json, print_table, say
from ripieno.cli.running import require_workers, run_app, run_memory
from ripieno.domain.memory import Item, ItemKind, NewItem, ReadStatus, Recall, Scope
from ripieno.domain.objective import Privacy
from ripieno.errors import GateRefused, MemoryUnavailable

if TYPE_CHECKING:
    from ripieno.app import Installation, MemoryApp
    from ripieno.memory.compact import Compacted
    from ripieno.memory.extract import Extracted
    from ripieno.memory.health import MemoryHealth

_HEALTH = ("items", "newest_at", "unembedded", "beat_at", "stalled", "detail")


@click.group(epilog='\b\nExample:\n  ripieno memory recall "Which database did we choose?"')
def memory() -> None:
    """Store, find and erase items, and compact conversations."""


@memory.command(epilog='\b\nExample:\n  ripieno memory remember "We deploy on Tuesdays." --kind decision --project web')
@click.argument("text")
@click.option("--kind", type=click.Choice([kind.value for kind in ItemKind]), default="fact", show_default=True)
@click.option("--author", default="", help="Person who said it, or the person it is about.")
@click.option("--thread", default="", help="Conversation of the item.")
@click.option("--project", default="", help="Project of the memory. Default: shared by all projects.")
@click.option("--user", default="", help="User of the memory. Default: shared by all users.")
@click.option("--privacy", type=click.Choice([each.value for each in Privacy]), default="public", show_default=True,
              help="How far it may travel.")  # fmt: skip
@click.option("--supersedes", metavar="ID", help="Item that this one replaces.")
@prints_json
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
    """Store TEXT, and print its id once it is on disk."""
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
    (receipt,) = run_memory(config, lambda app: app.memory.remember([item]))
    if as_json:
        told = {"id": receipt.id, "place": receipt.place, "is_new": receipt.is_new}
        print_json(told | ({"secrets_removed": receipt.removed} if receipt.removed else {}))
    else:
        click.echo(receipt.id)
    if receipt.removed:
        say(f"{receipt.removed} secrets were removed from the text")


@memory.command(epilog='\b\nExample:\n  ripieno memory recall "When do we deploy?" --project web')
@click.argument("question")
@click.option("--most", type=click.IntRange(1, 200), default=10, show_default=True, help="Most items to return.")
@click.option("--project", default="", help="Project of the memory. Default: shared by all projects.")
@click.option("--user", default="", help="User of the memory. Default: shared by all users.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice([kind.value for kind in ItemKind]))
@click.option("--reach", type=click.Choice([each.value for each in Privacy]),
              help="How far the question and the result may travel. Default: no limit.")  # fmt: skip
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Search what was known and true then, in UTC.",
)
@prints_json
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
    """Find items that fit QUESTION. An outage exits with 3, and never looks like an empty memory."""

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
@prints_json
def history(config: Path | None, *, item: str, as_json: bool) -> None:
    """Show all versions of ITEM: those it superseded, and those that superseded it."""
    found = run_memory(config, lambda app: app.memory.history(item))
    if as_json:
        print_json({"items": [describe_item(each) for each in found]})
        return
    rows = [
        [each.id[:12], _format_time(each.recorded_at), _format_time(each.valid_from), each.text or "(erased)"]
        for each in found
    ]
    print_table(("item", "learned", "true from", "text"), rows)


@memory.command(epilog="\b\nExample:\n  ripieno memory forget 3f2a91c0")
@click.argument("item")
@prints_json
def forget(config: Path | None, *, item: str, as_json: bool) -> None:
    """Erase the text of ITEM and of all items derived from it. Its digest stays as proof."""
    erased = run_memory(config, lambda app: app.memory.forget(item))
    if as_json:
        print_json({"id": item, "digest": erased.digest, "derived": list(erased.derived)})
    else:
        click.echo(erased.digest)
        say(f"erased, with {len(erased.derived)} derived items")


@memory.command(epilog="\b\nExample:\n  ripieno memory status --beat")
@click.option("--beat", is_flag=True, help="Write a canary and read it back first.")
@prints_json
def status(config: Path | None, *, beat: bool, as_json: bool) -> None:
    """Show the health of memory: canary, watermarks and quarantined syncs."""

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
    """Rebuild the word index and the vectors from the items."""
    say(f"{run_memory(config, lambda app: app.memory.rebuild())} items are indexed")


@memory.command(epilog="\b\nExample:\n  ripieno memory sync notes notes.jsonl")
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--bound", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help="Largest share of the items that a sync may remove.")  # fmt: skip
@prints_json
def sync(config: Path | None, *, source: str, file: Path, bound: float, as_json: bool) -> None:
    """Replace the whole content of SOURCE with FILE, one JSON item per line. Missing items are retired.

    A sync that is empty, or removes more than --bound, is put into quarantine, and the last good version stays.
    """
    listed = read_items(file)
    version = run_memory(config, lambda app: app.memory.sync(source, listed, bound=bound))
    if as_json:
        print_json({"source": source, "nth": version.nth, "status": version.status, "reason": version.reason})
    else:
        say(f"{source}, sync {version.nth}: {version.items} items, {version.status.value} {version.reason}".rstrip())
    if version.status == "quarantined":
        raise GateRefused(
            f"the sync of {source!r} is in quarantine: {version.reason}", hint="the last good version stays"
        )


@memory.command("import", epilog="\b\nExample:\n  ripieno memory import git . --project web")
@click.argument("kind", type=click.Choice(["chat", "claude-code", "codex", "shell", "git", "folder"]))
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--project", default="", help="Project of the memory. Default: shared by all projects.")
@click.option("--user", default="", help="User of the memory. Default: shared by all users.")
@click.option("--privacy", type=click.Choice([each.value for each in Privacy]), default="local", show_default=True,
              help="How far it may travel.")  # fmt: skip
@click.option(
    "--watch", type=click.FloatRange(min=1), metavar="SECONDS", help="Repeat after this many seconds, until Ctrl-C."
)
@prints_json
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
    """Import the records at PATH, from the end of the last import on. Each record is stored once.

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
@click.option("--worker", help="Worker that writes a summary beside the facts, or `auto`. Default: facts alone.")
@prints_json
def compact(config: Path | None, *, file: Path, worker: str | None, as_json: bool) -> None:
    """Compact the conversation in FILE: a JSON array of messages, or one per line.

    Kept are the latest request, and the sentences that its rules recognise as decisions in force, rules, tasks or
    failures, or that have identifiers, dates or amounts. They miss decisions in free sentences, and a decision replaces
    earlier ones about the same subject. Secrets are not kept. If a check fails, the command prints nothing and exits
    with 5.
    """
    from ripieno.memory.compact import compact as shorten

    turns = read_turns(file)

    async def work(app: Installation) -> Compacted:
        if worker != "auto":
            require_workers(app.runtime.pool, [worker or ""])
        return await shorten(turns, write=partial(app.runtime.orchestrator.generate_text, worker=worker))

    found = run_app(config, work) if worker is not None else asyncio.run(shorten(turns, write=None))
    if as_json:
        print_json(found)
    elif found.text:
        click.echo(found.text)
        say(f"{found.words} of {found.words_before} words, {found.marks} identifiers, dates and amounts kept")
    if found.left_out:
        say(f"without a worker's summary: {found.left_out}")
    if found.status != "ok":
        raise GateRefused(f"nothing was compacted: {found.reason}", hint="the conversation stays as it is")


@memory.command(epilog="\b\nExample:\n  ripieno memory extract --worker auto")
@click.option(
    "--worker", default="auto", show_default=True, help="Worker that reads, or `auto` for the router's choice."
)
@click.option("--most", type=click.IntRange(1), default=1000, show_default=True, help="Turns to read.")
@prints_json
def extract(config: Path | None, *, worker: str, most: int, as_json: bool) -> None:
    """Extract facts from conversations since the last extraction, as additional keys.

    The turns stay unchanged. A fact that its turns do not support is left out.
    """
    from ripieno.app.remembering import extract_facts

    async def work(app: Installation) -> Extracted:
        if worker != "auto":
            require_workers(app.runtime.pool, [worker])
        done = await extract_facts(app, worker=worker, most=most)
        if done is None:
            raise MemoryUnavailable("another process is extracting facts", hint="wait until it ends")
        return done

    done = run_app(config, work)
    if as_json:
        print_json(done)
    else:
        say(f"{done.turns} turns read: {done.facts} facts kept, {done.refused} refused, {done.failed} batches failed")
        if done.skipped:
            say(f"{done.skipped} turns skipped: their key does not allow the worker, or cannot pay for it")


def describe_recall(found: Recall) -> dict[str, object]:
    """Describe a read for JSON."""
    facts = {name: getattr(found, name) for name in ("status", "support", "age_s", "synced_at", "detail")}
    return facts | {
        "items": [
            {"score": each.score, "because": list(each.because)} | describe_item(each.item) for each in found.items
        ],
    }


def describe_item(item: Item) -> dict[str, object]:
    """Describe an item for JSON."""
    from ripieno.gateway.memories import describe_item as describe

    return describe(item) | {"project": item.scope.project, "user": item.scope.user}


def describe_health(found: MemoryHealth) -> dict[str, object]:
    """Describe the health for JSON."""
    return {
        **{name: getattr(found, name) for name in _HEALTH},
        "status": found.pulse,
        "sources": [{"source": s.source, "seen_at": s.seen_at, "committed_at": s.committed_at} for s in found.sources],
        "quarantined": [{"source": v.source, "nth": v.nth, "reason": v.reason} for v in found.quarantined],
    }


def _show_recall(found: Recall) -> None:
    rows = [
        [
            each.item.id[:12],
            f"{each.score:.2f}",
            each.item.kind.value,
            _format_time(each.item.happened_at),
            _format_text(each.item),
        ]
        for each in found.items
    ]
    if rows:
        print_table(("item", "score", "kind", "when", "text"), rows)
    age = "nothing is recorded" if found.age_s is None else f"newest item {found.age_s:.0f} s old"
    say(f"{found.status.value}, support {found.support:.0%}; {age} {found.detail}".rstrip())


def _show_health(found: MemoryHealth) -> None:
    rows = [[each.source, _format_time(each.seen_at), _format_time(each.committed_at)] for each in found.sources]
    if rows:
        print_table(("source", "seen", "committed"), rows)
    for version in found.quarantined:
        say(f"in quarantine: {version.source}, sync {version.nth}: {version.reason}")
    say(f"{found.pulse.value}: {found.items} items, {found.unembedded} without a vector {found.detail}".rstrip())


def _format_text(item: Item) -> str:
    text = " ".join(item.text.split())
    told = f"{item.author}: {text}" if item.author else text
    return told if len(told) <= 100 else f"{told[:99]}…"


def _format_time(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M")
