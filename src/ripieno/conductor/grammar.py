"""The grammar of plans: one meaning, two forms, one parser.

    plan   := step (";" step)*                      at most five
    step   := worker op source ["[" text "]"]
    worker := number of the roster, from 0
    op     := solve | extract | transform | run | verify | merge
    source := question | prev | all

A small policy emits the words above, token by token. A language model writes the same as JSON:
`{"steps": [{"worker": 0, "op": "solve", "source": "question", "text": "..."}]}`. In both forms, only complete, valid
plans reach the engine.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ripieno.conductor.base import Roster
from ripieno.domain import JsonValue, Op, Plan, Step, WorkerId
from ripieno.domain.workflow import MOST_STEPS
from ripieno.errors import InvalidPlan

LONGEST_TEXT = 500
"""Most characters of a subtask."""
_STEP = re.compile(r"\s*(\d+)\s+([a-z]+)\s+([a-z]+)\s*(?:\[([^\[\]]*)\])?\s*")
_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?```\s*$", re.DOTALL)


class Source(StrEnum):
    """The input that a step sees."""

    QUESTION = "question"
    PREV = "prev"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """One step in either form."""

    worker: int
    op: str
    source: str
    text: str | None = None


def parse_text(text: str, roster: Roster, *, author: str = "", fallbacks: Sequence[WorkerId] = ()) -> Plan:
    """Read the words of a plan.

    Raises:
        InvalidPlan: the text is not a plan. It names the step.
    """
    phrases = []
    for place, part in enumerate(text.split(";"), start=1):
        match = _STEP.fullmatch(part)
        if match is None:
            raise InvalidPlan(f"{part.strip()[:60]!r} is not `worker op source [text]`", step=place)
        phrases.append(
            Phrase(worker=int(match.group(1)), op=match.group(2), source=match.group(3), text=match.group(4))
        )
    return make_plan(phrases, roster, author=author, fallbacks=fallbacks)


def parse_json(text: str, roster: Roster, *, author: str = "", fallbacks: Sequence[WorkerId] = ()) -> Plan:
    """Read a plan in JSON, alone or as the only fenced block.

    Raises:
        InvalidPlan: the text is not a plan. It names the step.
    """
    fenced = _FENCE.match(text)
    try:
        found = json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError) as error:
        raise InvalidPlan(f"the plan is not valid JSON: {str(error)[:100]}") from error
    steps = found.get("steps") if isinstance(found, dict) else None
    if not isinstance(steps, list) or not steps:
        raise InvalidPlan('a plan is an object with a list of "steps"')
    phrases = [_read_phrase(raw, place) for place, raw in enumerate(steps, start=1)]
    return make_plan(phrases, roster, author=author, fallbacks=fallbacks)


def make_plan(
    phrases: Sequence[Phrase], roster: Roster, *, author: str = "", fallbacks: Sequence[WorkerId] = ()
) -> Plan:
    """Make the plan of some steps: the only place that converts either form for the engine.

    Raises:
        InvalidPlan: a worker, operation or source is unknown, or does not fit its place.
    """
    if not 1 <= len(phrases) <= MOST_STEPS:
        raise InvalidPlan(f"a plan has 1 to {MOST_STEPS} steps, not {len(phrases)}")
    steps = tuple(_make_step(phrase, place, roster) for place, phrase in enumerate(phrases))
    try:
        return Plan(steps=steps, author=author, fallbacks=tuple(fallbacks))
    except ValueError as error:
        raise InvalidPlan(str(error)) from error


def format_plan(plan: Plan, roster: Roster) -> str:
    """Write the words of a plan. `parse_text` reads them back.

    Raises:
        InvalidPlan: a step sees single steps, or names a worker that is not on the roster.
    """
    parts = []
    for place, step in enumerate(plan.steps):
        number = roster.find(step.worker)
        if number is None:
            raise InvalidPlan(f"{step.worker!r} is not on the roster", step=place + 1)
        text = f" [{step.text}]" if step.text else ""
        parts.append(f"{number} {step.op} {name_source(step, place)}{text}")
    return "; ".join(parts)


def name_source(step: Step, place: int) -> Source:
    """Return the grammar's name of a step's source.

    Raises:
        InvalidPlan: the step sees some earlier steps, which the grammar cannot express.
    """
    if not step.access:
        return Source.QUESTION
    if step.access == (place - 1,):
        return Source.PREV
    if step.access == tuple(range(place)):
        return Source.ALL
    raise InvalidPlan("the step sees some of the earlier steps, which the grammar cannot express", step=place + 1)


def make_schema(roster: Roster) -> dict[str, JsonValue]:
    """Make the JSON schema of all plans of a roster, which constrains a language model's decoding."""
    runners = [place for place, worker in enumerate(roster.workers) if worker.can_run]
    everyone = list(range(len(roster)))
    plain = [op.value for op in Op if op is not Op.RUN]
    kinds = [_make_step_schema(everyone, plain)] + ([_make_step_schema(runners, [Op.RUN.value])] if runners else [])
    steps: dict[str, JsonValue] = {"type": "array", "minItems": 1, "maxItems": MOST_STEPS}
    steps["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return {"type": "object", "properties": {"steps": steps}, "required": ["steps"], "additionalProperties": False}


def _make_step_schema(workers: Sequence[int], ops: Sequence[str]) -> dict[str, JsonValue]:
    return {
        "type": "object",
        "properties": {
            "worker": {"type": "integer", "enum": list(workers)},
            "op": {"type": "string", "enum": list(ops)},
            "source": {"type": "string", "enum": [source.value for source in Source]},
            "text": {"type": "string", "maxLength": LONGEST_TEXT},
        },
        "required": ["worker", "op", "source"],
        "additionalProperties": False,
    }


def _read_phrase(raw: JsonValue, place: int) -> Phrase:
    if not isinstance(raw, Mapping):
        raise InvalidPlan("a step is an object", step=place)
    unknown = set(raw) - {"worker", "op", "source", "text"}
    if unknown:
        raise InvalidPlan(f"a step has no field {min(map(str, unknown))!r}", step=place)
    worker, op, source, text = (raw.get(name) for name in ("worker", "op", "source", "text"))
    if not isinstance(worker, int) or isinstance(worker, bool):
        raise InvalidPlan(f"worker must be a number of the roster, got {worker!r}", step=place)
    if not isinstance(op, str) or not isinstance(source, str):
        raise InvalidPlan("a step needs op and source", step=place)
    if text is not None and not isinstance(text, str):
        raise InvalidPlan(f"text must be a string, got {text!r}", step=place)
    return Phrase(worker=worker, op=op, source=source, text=text)


def _make_step(phrase: Phrase, place: int, roster: Roster) -> Step:
    number = place + 1
    if not 0 <= phrase.worker < len(roster):
        raise InvalidPlan(f"there is no worker {phrase.worker}, the roster has 0 to {len(roster) - 1}", step=number)
    worker = roster.workers[phrase.worker]
    if phrase.op not in tuple(Op):
        raise InvalidPlan(f"there is no operation {phrase.op!r}; operations: {', '.join(Op)}", step=number)
    if phrase.source not in tuple(Source):
        raise InvalidPlan(f"there is no source {phrase.source!r}; sources: {', '.join(Source)}", step=number)
    if phrase.op == Op.RUN and not worker.can_run:
        raise InvalidPlan(f"worker {phrase.worker} cannot execute code, and its step is `run`", step=number)
    if phrase.text is not None and not phrase.text.strip():
        raise InvalidPlan("the subtask is empty; leave it out, or say what to do", step=number)
    if phrase.text is not None and len(phrase.text) > LONGEST_TEXT:
        raise InvalidPlan(f"the subtask has {len(phrase.text)} characters; the limit is {LONGEST_TEXT}", step=number)
    if phrase.source != Source.QUESTION and place == 0:
        raise InvalidPlan(f"the first step sees {phrase.source!r}, and there is no earlier step", step=number)
    access = {Source.QUESTION: (), Source.PREV: (place - 1,), Source.ALL: tuple(range(place))}
    return Step(
        worker=worker.id, op=Op(phrase.op), access=access[Source(phrase.source)], text=(phrase.text or "").strip()
    )
