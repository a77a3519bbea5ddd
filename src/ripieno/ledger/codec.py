"""Entries to rows and back. Bodies are JSON; each carries the format's version."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, get_args

import msgspec

from ripieno.domain import Configured, Decided, Decision, Entry, Executed, Run, Solo, Task, WorkerId, sum_costs
from ripieno.domain.objective import REMOVED_MODES
from ripieno.errors import LedgerCorrupt
from ripieno.ledger.messages import (
    RecordedAnswer,
    is_old,
    load_old_task,
    make_answer_body,
    make_message_body,
    read_answer,
)
from ripieno.ledger.tagged import InputsBody, decode_workflow, make_body, make_inputs_body, read_inputs

_Kind = TypeVar("_Kind")

GENESIS = "0" * 64
_RECORDED = {"learned_workflow": "mode"}
"""Recorded names of fields that the domain has renamed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRow:
    """One entry as a row of the table, without its place in the chain."""

    id: str
    kind: str
    body: str
    run: str | None = None
    decision: str | None = None
    task: str | None = None
    dataset: str | None = None
    task_body: str | None = None
    """Body of the task for the `tasks` table, if the entry has one."""
    key: str | None = None
    """Virtual key that pays for the run."""
    cost_usd: float = 0.0
    """Known part of the cost, in US dollars."""
    tokens: int = 0
    has_unknown_cost: bool = False
    """True if a call has an unknown cost."""


def encode_entry(entry: Entry) -> EntryRow:
    """Turn an entry into a row."""
    kind = type(entry).__name__.lower()
    match entry:
        case Decided(decision=decision, task=task):
            return EntryRow(
                id=entry.id,
                kind=kind,
                body=_dump_decision(decision),
                decision=decision.id,
                task=task.digest,
                task_body=dump_task(task),
            )
        case Configured(setup=setup):
            body = msgspec.json.encode(Configured(setup=setup.without_options()), order="deterministic")
            return EntryRow(id=entry.id, kind=kind, body=body.decode())
        case Executed(run=run, task=task):
            known, unknown = sum_costs([call.cost_usd for call in run.calls])
            return EntryRow(
                id=entry.id,
                kind=kind,
                body=_dump(_list_fields(run) | {"answer": make_answer_body(run.answer)}),
                run=run.id,
                decision=run.decision,
                task=run.task,
                dataset=run.placement.dataset if run.placement else None,
                task_body=dump_task(task) if task is not None else None,
                key=run.key,
                cost_usd=known if run.key is not None else 0.0,
                tokens=run.tokens if run.key is not None else 0,
                has_unknown_cost=unknown > 0,
            )
        case _:
            return EntryRow(id=entry.id, kind=kind, body=_dump(entry), run=getattr(entry, "run", None))


def decode_entry(kind: str, body: str, *, entry: str, task_body: str | None = None) -> Entry:
    """Turn a row back into an entry.

    Raises:
        LedgerCorrupt: the body does not fit its kind.
    """
    try:
        if kind == "decided":
            return Decided(decision=_load_decision(body), task=load_task(task_body or ""))
        if kind == "executed":
            task = None if task_body is None else load_task(task_body)
            found = msgspec.json.decode(body, type=_RunBody)
            return Executed(run=_restore(Run, found, answer=read_answer(found.answer)), task=task)
        if kind in _KINDS:
            return msgspec.json.decode(body, type=_KINDS[kind])
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise LedgerCorrupt(f"entry {entry!r} cannot be read: {error}", entry=entry) from error
    raise LedgerCorrupt(f"entry {entry!r} cannot be read: unknown kind {kind!r}", entry=entry)


_KINDS: Mapping[str, type[Entry]] = {kind.__name__.lower(): kind for kind in get_args(Entry)}
"""Entries by kind. All others than the two above are read by the types of their fields alone."""


def chain_digest(previous: str, row: EntryRow, *, at: float) -> str:
    """Compute the digest of an entry and all before it. A changed or missing row breaks every later digest."""
    packed = "\x1f".join((previous, row.id, row.kind, repr(at), row.task or "", row.body))
    return hashlib.sha256(packed.encode("utf-8", "surrogatepass")).hexdigest()


def dump_task(task: Task) -> str:
    """Write the body of a task, without what it has in the form of one wire format."""
    fields = _list_fields(task) | {"messages": [make_message_body(message) for message in task.messages]}
    del fields["native"]
    if not task.served_tools:
        del fields["served_tools"]
    return _dump(fields)


def load_task(body: str) -> Task:
    """Turn the body of a task into a task. Its digest is computed from its content, not read from the body.

    Raises:
        msgspec.MsgspecError: the body is no task.
    """
    digest = ""
    try:
        task = _load(body, Task)
        is_readable = not is_old(task)
    except msgspec.ValidationError:
        is_readable = False
    if not is_readable:
        task, digest = load_old_task(body, partial(_load, kind=Task))
    object.__setattr__(task, "_digest", digest)
    return task


def _dump(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _load(body: str, kind: type[_Kind]) -> _Kind:
    """Decode a body with an objective. A removed mode becomes None, because the recorded workflow shows it."""
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
    parts = _list_fields(decision)
    inputs = parts.pop("inputs")
    if not isinstance(decision.workflow, Solo):
        parts["workflow"] = make_body(decision.workflow)
    if inputs is not None:
        parts["inputs"] = make_inputs_body(inputs, decision.workflow)
    return _dump(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunBody(Run):
    """A run with the recorded names of its fields, and its answer as recorded by any version."""

    mode: WorkerId | None = None
    answer: RecordedAnswer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _DecisionBody(Decision):
    """A decision with the recorded names of its fields, the JSON of its workflow, and a check in short form."""

    mode: WorkerId | None = None
    workflow: msgspec.Raw  # type: ignore[assignment]  # replaced by `_load_decision`
    inputs: InputsBody | None = None  # type: ignore[assignment]  # replaced, too


def _load_decision(body: str) -> Decision:
    found = _load(body, _DecisionBody)
    workflow = decode_workflow(bytes(found.workflow))
    inputs = None if found.inputs is None else read_inputs(found.inputs, workflow)
    return _restore(Decision, found, workflow=workflow, inputs=inputs)


def _list_fields(value: Decision | Run | Task) -> dict[str, Any]:
    """Return the fields of a value by their recorded names."""
    return {_RECORDED.get(name, name): getattr(value, name) for name in type(value).__slots__}


def _restore(kind: type[_Kind], found: _Kind, **replaced: object) -> _Kind:
    """Make a value of a body with recorded names."""
    names: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]  # a dataclass with slots
    return kind(**{name: getattr(found, _RECORDED.get(name, name)) for name in names} | replaced)
