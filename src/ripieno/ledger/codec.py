"""Entries to rows and back. Bodies are JSON; each carries the format's version."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, assert_never, get_args

import msgspec

from ripieno.domain import (
    Begun,
    Claimed,
    Decided,
    Decision,
    Entry,
    Executed,
    Judged,
    Learned,
    Promoted,
    Proposed,
    Resolved,
    Run,
    Solo,
    Staged,
    Stepped,
    Task,
    sum_costs,
)
from ripieno.domain.task import REMOVED_MODES
from ripieno.errors import LedgerCorrupt
from ripieno.ledger.tagged import decode_workflow, make_body

_Kind = TypeVar("_Kind")

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
    """The known part of it, in US dollars."""
    tokens: int = 0
    has_unknown_cost: bool = False
    """Whether some call has an unknown cost."""


def encode_entry(entry: Entry) -> Row:
    """Turn an entry into a row."""
    match entry:
        case Decided(decision=decision, task=task):
            return Row(
                id=entry.id,
                kind="decided",
                body=_dump_decision(decision),
                decision=decision.id,
                task=task.digest,
                task_body=_dump(task),
            )
        case Executed(run=run, task=task):
            known, unknown = sum_costs([call.cost_usd for call in run.calls])
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
                cost_usd=known if run.key is not None else 0.0,
                tokens=run.tokens if run.key is not None else 0,
                has_unknown_cost=unknown > 0,
            )
        case Judged(run=run_id):
            return Row(id=entry.id, kind="judged", body=_dump(entry), run=run_id)
        case (
            Claimed(run=run_id) | Begun(run=run_id) | Stepped(run=run_id) | Proposed(run=run_id) | Resolved(run=run_id)
        ):
            return Row(id=entry.id, kind=type(entry).__name__.lower(), body=_dump(entry), run=run_id)
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
        if kind == "decided":
            return Decided(decision=_load_decision(body), task=load_task(task_body or ""))
        if kind == "executed":
            task = None if task_body is None else load_task(task_body)
            return Executed(run=msgspec.json.decode(body, type=Run), task=task)
        if kind in _PLAIN:
            return msgspec.json.decode(body, type=_PLAIN[kind])
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise LedgerCorrupt(f"entry {entry!r} cannot be read: {error}", entry=entry) from error
    raise LedgerCorrupt(f"entry {entry!r} cannot be read: unknown kind {kind!r}", entry=entry)


_Plain: TypeAlias = Judged | Claimed | Begun | Stepped | Proposed | Resolved | Learned | Promoted | Staged
_PLAIN: Mapping[str, type[_Plain]] = {kind.__name__.lower(): kind for kind in get_args(_Plain)}
"""Entries whose fields say by their types how they are read."""


def chain_digest(previous: str, row: Row, *, at: float) -> str:
    """Digest of an entry and of all before it: a changed or missing row breaks every later digest."""
    packed = "\x1f".join((previous, row.id, row.kind, repr(at), row.task or "", row.body))
    return hashlib.sha256(packed.encode("utf-8", "surrogatepass")).hexdigest()


def _dump(value: object) -> str:
    return msgspec.json.encode(value).decode()


def load_task(body: str) -> Task:
    """Turn the body of a task into a task, whose digest follows from what it holds and not from what the body says.

    Raises:
        msgspec.MsgspecError: the body is no task.
    """
    task = _load(body, Task)
    object.__setattr__(task, "_digest", "")  # computed when it is first asked for
    return task


def _load(body: str, kind: type[_Kind]) -> _Kind:
    """Decode a body with an objective; a removed mode, which the workflow tells, is left out."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        found = msgspec.json.decode(body, type=dict[str, Any])
        objective = found.get("objective")
        if not isinstance(objective, dict) or str(objective.get("mode")) not in REMOVED_MODES:
            raise
        objective["mode"] = None
        return msgspec.json.decode(msgspec.json.encode(found), type=kind)


def _dump_decision(decision: Decision) -> str:
    if isinstance(decision.workflow, Solo):
        return _dump(decision)
    return _dump(_take_parts(decision) | {"workflow": make_body(decision.workflow)})


@dataclass(frozen=True, slots=True, kw_only=True)
class _DecisionBody(Decision):
    """A decision whose workflow is still JSON."""

    workflow: msgspec.Raw  # type: ignore[assignment]  # replaced before anybody else sees it


def _load_decision(body: str) -> Decision:
    found = _load(body, _DecisionBody)
    return Decision(**_take_parts(found) | {"workflow": decode_workflow(bytes(found.workflow))})


def _take_parts(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in Decision.__slots__}
