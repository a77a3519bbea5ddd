"""The record's format: entries of earlier versions are read and written byte for byte."""

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ripieno.domain import Answer, Decided, Decision, Executed, Message, Mode, Task, WorkerId
from ripieno.domain.conversation import (
    Media,
    MediaKind,
    Native,
    NativeRequest,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from ripieno.domain.grader import Check
from ripieno.domain.objective import REMOVED_MODES, read_mode
from ripieno.domain.task import digest_of
from ripieno.domain.workflow import Ensemble, Merge, Solo, Workflow, find_removed_mode
from ripieno.errors import LedgerCorrupt
from ripieno.ledger.codec import GENESIS, EntryRow, chain_digest, decode_entry, dump_task, encode_entry, load_task
from ripieno.ledger.tagged import _CLASSES, dump_tagged, load_tagged

ENTRIES: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "entries_of_version_1.jsonl").read_text().splitlines()
]
"""Every kind of workflow and check, written before the structs of `ledger/tagged.py` were."""


def decode(row: dict[str, Any]) -> Any:
    return decode_entry(row["kind"], row["body"], entry=row["id"], task_body=row["task_body"])


def has_removed_mode(row: dict[str, Any]) -> bool:
    return any(f'"mode":"{name}"' in row["body"] for name in REMOVED_MODES)


def test_entries_of_earlier_versions_are_written_again_byte_for_byte() -> None:
    current = [row for row in ENTRIES if not has_removed_mode(row)]
    assert len(current) >= 20
    for row in current:
        again = encode_entry(decode(row))
        assert again.body == row["body"]
        if row["kind"] == "decided":
            assert again.task_body == row["task_body"]


def test_a_learned_workflow_keeps_its_recorded_name() -> None:
    decided, executed = decode(ENTRIES[0]), decode(next(row for row in ENTRIES if row["kind"] == "executed"))
    name = WorkerId("agreement:a")
    for entry in (
        replace(decided, decision=replace(decided.decision, learned_workflow=name)),
        replace(executed, run=replace(executed.run, learned_workflow=name)),
    ):
        row = encode_entry(entry)
        fields_of = json.loads(row.body)
        assert fields_of["mode"] == name
        assert "learned_workflow" not in fields_of
        assert decode_entry(row.kind, row.body, entry=row.id, task_body=row.task_body) == entry


def test_the_chain_of_earlier_versions_holds() -> None:
    previous = GENESIS
    for row in ENTRIES:
        shell = EntryRow(id=row["id"], kind=row["kind"], body=row["body"], task=row["task"])
        previous = chain_digest(previous, shell, at=row["at"])
        assert previous == row["digest"]


def test_decisions_of_removed_modes_are_read_as_their_workflows() -> None:
    removed = [decode(row) for row in ENTRIES if has_removed_mode(row)]
    assert [find_removed_mode(entry.decision.workflow) for entry in removed] == ["debate", "mixture"]
    for entry in removed:
        assert isinstance(entry, Decided)
        assert isinstance(entry.decision.workflow, Ensemble)
        assert entry.decision.workflow.rounds == 2
        assert (entry.decision.objective.mode, entry.task.objective.mode) == (None, None)
    executed = next(decode(row) for row in ENTRIES if row["kind"] == "executed")
    assert isinstance(executed, Executed)
    assert find_removed_mode(Ensemble(members=(WorkerId("a"),) * 2, merge=Merge.VOTE)) is None


def test_the_digest_of_a_task_with_a_removed_mode_stays() -> None:
    row = next(row for row in ENTRIES if has_removed_mode(row))
    assert load_task(row["task_body"]).digest == row["task"]


@pytest.mark.parametrize(
    "objective", ['{"mode":"shout"}', '"loud"', '{"mode":["debate"]}', '{"preference":2.0,"mode":"debate"}']
)
def test_an_invalid_task_body_is_corrupt(objective: str) -> None:
    body = f'{{"messages":[{{"role":"user","content":"x"}}],"objective":{objective}}}'
    with pytest.raises(LedgerCorrupt):
        decode_entry("executed", ENTRIES[1]["body"], entry="e", task_body=body)


@pytest.mark.parametrize("body", ["[]", "{", '{"id":"d"}'])
def test_an_invalid_decision_body_is_corrupt(body: str) -> None:
    with pytest.raises(LedgerCorrupt):
        decode_entry("decided", body, entry="e", task_body="{}")


def test_every_kind_of_workflow_and_check_has_its_struct_with_the_same_fields() -> None:
    assert set(_CLASSES.values()) == {*Workflow.__args__, *Check.__args__}
    for body, kind in _CLASSES.items():
        assert body.__struct_fields__ == tuple(field.name for field in fields(kind))
        defaults = [field.default for field in fields(kind) if field.default is not MISSING]
        assert list(body.__struct_defaults__) == defaults


def test_a_workflow_survives_a_round_trip_through_json() -> None:
    for row in ENTRIES:
        entry = decode(row)
        if isinstance(entry, Decided):
            assert load_tagged(dump_tagged(entry.decision.workflow)) == entry.decision.workflow
    assert load_tagged({"worker": "a"}) == Solo(worker=WorkerId("a"))
    with pytest.raises(ValueError, match="kind"):
        load_tagged({"kind": "orchestra"})


def test_a_removed_mode_names_what_to_use_instead() -> None:
    for name, instead in REMOVED_MODES.items():
        with pytest.raises(ValueError, match=f"'{name}' was removed: use '{instead.value}' or 'plan'"):
            read_mode(name)
    with pytest.raises(ValueError, match="no workflow is called 'shout'; workflows: solo"):
        read_mode("shout")
    assert read_mode("best-of") is Mode.BEST_OF


def test_a_decision_keeps_its_class_and_its_fields() -> None:
    entry = decode(ENTRIES[0])
    assert type(entry.decision) is Decision
    assert Decision.__slots__ == tuple(field.name for field in fields(Decision))
    assert type(entry.task) is Task


OLD_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}}
OLD_MESSAGES: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [{"type": "text", "text": "Where?"}, {"type": "image_url", "image_url": {"url": "u"}}],
        "extra": {},
    },
    {"role": "assistant", "content": None, "extra": {"tool_calls": [OLD_CALL]}},
    {"role": "tool", "content": "nothing", "extra": {"tool_call_id": "c1"}},
]


OLD_RESULT = [{"role": "user", "content": "Where?", "extra": {}}, OLD_MESSAGES[2]]


@pytest.mark.parametrize("messages", [OLD_MESSAGES, OLD_RESULT])
def test_a_task_of_an_earlier_version_keeps_its_digest_and_gets_typed_parts(messages: list[dict[str, Any]]) -> None:
    body = {"messages": messages, "tools": [], "params": {"n": 1}}
    task = load_task(json.dumps(body))
    seen = [[message["role"], message["content"], message["extra"]] for message in messages]
    assert task.digest == digest_of({"messages": seen, "tools": [], "params": {"n": 1}})
    assert (task.text.splitlines()[0], task.params) == ("Where?", {"n": 1})
    assert [part.call for part in task.messages[-1].parts if isinstance(part, ToolResult)] == ["c1"]
    if len(messages) == 3:
        assert task.messages[1].calls == (ToolCall(id="c1", name="look", arguments='{"q": 1}'),)
        assert task.messages[0].count_media(MediaKind.IMAGE) == 1
    with pytest.raises(msgspec.MsgspecError):
        load_task('{"messages": 5}')


def test_a_task_and_an_answer_of_parts_are_recorded_without_their_received_form() -> None:
    result = ToolResult(call="c1", content=(Text(text="no"), Media(kind=MediaKind.IMAGE, data="xx")), is_error=True)
    messages = (
        Message(role="user", content=(Text(text="Where?", cache="5m"),), native=Native("messages", {"a": 1})),
        Message(role="assistant", content=(Reasoning(text="hm", signature="s"), ToolCall(id="c1", name="look"))),
        Message(role="tool", content=(result,)),
    )
    received = NativeRequest(wire="messages", fields={"secret_field": 1}, tools=(), params={})
    task = Task(messages=messages, served_tools=("web_search",), native=received)
    body = dump_task(task)
    assert "secret_field" not in body
    again = load_task(body)
    assert again == task
    assert again.digest == task.digest
    assert (again.native, again.messages[0].native) == (None, None)
    executed = decode(next(row for row in ENTRIES if row["kind"] == "executed"))
    answer = replace(
        Answer.of((Reasoning(text="hm"), Text(text="here"))), lost=("seed",), authors=(WorkerId("a"), WorkerId("b"))
    )
    for given in (answer, None):
        entry = replace(executed, run=replace(executed.run, answer=given), task=None)
        row = encode_entry(entry)
        assert decode_entry(row.kind, row.body, entry=row.id) == entry
    older = json.loads(encode_entry(replace(executed, run=replace(executed.run, answer=Answer(text="here")))).body)
    older["answer"]["message"] = {"tool_calls": [OLD_CALL]}
    read = decode_entry("executed", json.dumps(older), entry="x")
    assert isinstance(read, Executed)
    assert read.run.answer is not None
    assert [call.name for call in read.run.answer.calls] == ["look"]
