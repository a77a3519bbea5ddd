"""Entries to rows and back. Bodies are JSON; each carries the format's version."""

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from typing import Any, TypeAlias, assert_never, cast, get_args, get_type_hints

import msgspec

from ripieno.domain import (
    Begun,
    Claimed,
    Configured,
    Decided,
    Decision,
    Entry,
    Executed,
    JsonValue,
    Judged,
    Learned,
    Promoted,
    Proposed,
    RecordedInputs,
    Resolved,
    Run,
    Solo,
    Staged,
    Stepped,
    Task,
    Workflow,
    sum_costs,
)
from ripieno.errors import LedgerCorrupt
from ripieno.ledger.tagged import dump_tagged, load_tagged

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
        case Configured(setup=setup):
            return Row(id=entry.id, kind="configured", body=_dump(Configured(setup=setup.without_options())))
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
            return Decided(decision=_load_decision(body), task=msgspec.json.decode(task_body or "", type=Task))
        if kind == "executed":
            task = None if task_body is None else msgspec.json.decode(task_body, type=Task)
            return Executed(run=msgspec.json.decode(body, type=Run), task=task)
        if kind in _PLAIN:
            return msgspec.json.decode(body, type=_PLAIN[kind])
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise LedgerCorrupt(f"entry {entry!r} cannot be read: {error}", entry=entry) from error
    raise LedgerCorrupt(f"entry {entry!r} cannot be read: unknown kind {kind!r}", entry=entry)


_Plain: TypeAlias = Configured | Judged | Claimed | Begun | Stepped | Proposed | Resolved | Learned | Promoted | Staged
_PLAIN: Mapping[str, type[_Plain]] = {kind.__name__.lower(): kind for kind in get_args(_Plain)}
"""Entries whose fields say by their types how they are read."""


def chain_digest(previous: str, row: Row, *, at: float) -> str:
    """Digest of an entry and of all before it: a changed or missing row breaks every later digest."""
    packed = "\x1f".join((previous, row.id, row.kind, repr(at), row.task or "", row.body))
    return hashlib.sha256(packed.encode("utf-8", "surrogatepass")).hexdigest()


def _dump(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _dump_decision(decision: Decision) -> str:
    if isinstance(decision.workflow, Solo):
        return _dump(decision)
    found = {each.name: getattr(decision, each.name) for each in fields(decision)}
    found["workflow"] = dump_tagged(decision.workflow)
    if decision.inputs is not None and decision.inputs.check is not None:
        check = _shorten(dump_tagged(decision.inputs.check), found["workflow"].get("check"))
        found["inputs"] = msgspec.to_builtins(replace(decision.inputs, check=None)) | {"check": check}
    return _dump(found)


def _load_decision(body: str) -> Decision:
    shell: Any = msgspec.json.decode(body, type=_SHELL)
    found = {each.name: getattr(shell, each.name) for each in fields(Decision)}
    workflow = msgspec.json.decode(found["workflow"])
    found["workflow"] = cast(Workflow, load_tagged(workflow))
    if found["inputs"] is not None:
        found["inputs"] = _load_inputs(found["inputs"], workflow)
    return Decision(**found)


def _load_inputs(found: Mapping[str, Any], workflow: Mapping[str, Any]) -> RecordedInputs:
    values = {each.name: found[each.name] for each in fields(RecordedInputs) if each.name in found}
    values["sensitivity"] = frozenset(found.get("sensitivity", ()))
    check = found.get("check")
    if check is not None:
        values["check"] = load_tagged(check if "kind" in check else workflow.get("check") | check)
    return RecordedInputs(**values)


def _shorten(check: Mapping[str, JsonValue], used: JsonValue) -> Mapping[str, JsonValue]:
    """Leave out of a stated check what the workflow's own check says too: its texts are recorded once."""
    if not isinstance(used, Mapping) or used.get("kind") != check["kind"]:
        return check
    return {name: part for name, part in check.items() if used[name] != part}


def _make_shell() -> type:
    """A decision whose workflow and inputs are still unread: which of a union a value is, its own JSON says."""
    hints = get_type_hints(Decision) | {"workflow": msgspec.Raw, "inputs": Any}
    parts = []
    for each in fields(Decision):
        if each.default_factory is not MISSING:
            parts.append((each.name, hints[each.name], field(default_factory=each.default_factory)))
        elif each.default is not MISSING:
            parts.append((each.name, hints[each.name], field(default=each.default)))
        else:
            parts.append((each.name, hints[each.name], field()))
    return make_dataclass("DecisionShell", parts, kw_only=True)


_SHELL = _make_shell()
