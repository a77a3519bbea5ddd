"""Entries to rows and back. Bodies are JSON; each carries the format's version."""

import hashlib
from dataclasses import dataclass
from typing import assert_never

import msgspec

from ripieno.domain import Decided, Decision, Entry, Executed, Judged, Learned, Promoted, Run, Staged, Task
from ripieno.errors import LedgerCorrupt

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entry as the table holds it, before it has a place in the chain."""

    id: str
    kind: str
    body: str
    run: str | None = None
    decision: str | None = None
    task: str | None = None
    dataset: str | None = None
    task_body: str | None = None
    """Body of the task for the `tasks` table, where this entry brings one."""
    key: str | None = None
    """The virtual key that pays for the run, with what it costs."""
    cost_usd: float = 0.0
    tokens: int = 0


def encode_entry(entry: Entry) -> Row:
    """Turn an entry into a row."""
    match entry:
        case Decided(decision=decision, task=task):
            return Row(
                id=entry.id,
                kind="decided",
                body=_dump(decision),
                decision=decision.id,
                task=task.digest,
                task_body=_dump(task),
            )
        case Executed(run=run, task=task):
            return Row(
                id=entry.id,
                kind="executed",
                body=_dump(run),
                run=run.id,
                decision=run.decision,
                task=run.task,
                dataset=run.placement.dataset if run.placement else None,
                task_body=_dump(task) if task is not None else None,
                key=run.key,
                cost_usd=(run.cost_usd or 0.0) if run.key is not None else 0.0,
                tokens=run.tokens if run.key is not None else 0,
            )
        case Judged(run=run_id):
            return Row(id=entry.id, kind="judged", body=_dump(entry), run=run_id)
        case Learned() | Promoted() | Staged():
            return Row(id=entry.id, kind=type(entry).__name__.lower(), body=_dump(entry))
        case _:
            assert_never(entry)


def decode_entry(kind: str, body: str, *, entry: str, task_body: str | None = None) -> Entry:
    """Turn a row back into an entry.

    Raises:
        LedgerCorrupt: the body is not what its kind says.
    """
    try:
        match kind:
            case "decided":
                decision = msgspec.json.decode(body, type=Decision)
                return Decided(decision=decision, task=msgspec.json.decode(task_body or "", type=Task))
            case "executed":
                task = None if task_body is None else msgspec.json.decode(task_body, type=Task)
                return Executed(run=msgspec.json.decode(body, type=Run), task=task)
            case "judged":
                return msgspec.json.decode(body, type=Judged)
            case "learned":
                return msgspec.json.decode(body, type=Learned)
            case "promoted":
                return msgspec.json.decode(body, type=Promoted)
            case "staged":
                return msgspec.json.decode(body, type=Staged)
            case _:
                reason = f"unknown kind {kind!r}"
    except (msgspec.MsgspecError, ValueError) as error:
        raise LedgerCorrupt(f"entry {entry!r} cannot be read: {error}", entry=entry) from error
    raise LedgerCorrupt(f"entry {entry!r} cannot be read: {reason}", entry=entry)


def chain_digest(previous: str, row: Row, *, at: float) -> str:
    """Digest of an entry and of all before it: a changed or missing row breaks every later digest."""
    packed = "\x1f".join((previous, row.id, row.kind, repr(at), row.task or "", row.body))
    return hashlib.sha256(packed.encode("utf-8", "surrogatepass")).hexdigest()


def _dump(value: object) -> str:
    return msgspec.json.encode(value).decode()
