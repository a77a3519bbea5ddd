"""Recorded form of values of closed unions: each is an object whose `kind` is its class.

The structs below are the format. A field that is renamed in the domain keeps its name here.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias, cast, get_args

import msgspec

from ripieno.domain import JsonValue, Merge, RecordedInputs, Solo, Step, WorkerId, Workflow, grader

Workers: TypeAlias = tuple[WorkerId, ...]
Tagged: TypeAlias = Workflow | grader.Check


class TaggedBody(msgspec.Struct, tag_field="kind", tag=lambda name: name[1:].lower()):
    """A recorded value."""


class _Exact(TaggedBody):
    answers: tuple[str, ...]


class _Numeric(TaggedBody):
    answer: float
    tolerance: float = 1e-6


class _MultipleChoice(TaggedBody, tag="choice"):
    letter: str
    options: tuple[str, ...]


class _JsonSchema(TaggedBody):
    schema: Mapping[str, JsonValue]


class _Pattern(TaggedBody):
    pattern: str


class _UnitTests(TaggedBody):
    tests: str
    prefix: str = ""
    timeout_s: float = 5.0


class _Judge(TaggedBody):
    rubric: str
    reference: str | None = None
    worker: WorkerId | None = None


class _External(TaggedBody):
    verifier: str
    facts: Mapping[str, JsonValue]


class _Agreement(TaggedBody):
    peer: WorkerId


class _Human(TaggedBody):
    question: str = "Is this answer right?"


_Check: TypeAlias = (
    _Exact | _Numeric | _MultipleChoice | _JsonSchema | _Pattern | _UnitTests | _Judge | _External | _Agreement | _Human
)


class _Solo(TaggedBody):
    worker: WorkerId
    fallbacks: Workers = ()


class _Cascade(TaggedBody):
    stages: Workers
    check: _Check
    threshold: float = 0.5
    fallbacks: Workers = ()


class _Verified(TaggedBody):
    worker: WorkerId
    check: _Check
    repairs: int = 1
    threshold: float = 0.5
    fallbacks: Workers = ()


class _Ensemble(TaggedBody):
    members: Workers
    merge: Merge
    arbiter: WorkerId | None = None
    check: _Check | None = None
    rounds: int = 1
    fallbacks: Workers = ()


class _Plan(TaggedBody):
    steps: tuple[Step, ...]
    fallbacks: Workers = ()
    author: str = ""


class _Turns(TaggedBody):
    worker: WorkerId
    fallbacks: Workers = ()
    most: int = 5
    author: str = ""


class InputsBody(msgspec.Struct, omit_defaults=True):
    """Recorded inputs of a decision."""

    setup: str
    kind: str | None = None
    sensitivity: tuple[str, ...] = ()
    is_encoded: bool = True
    check: dict[str, JsonValue] | None = None
    """The whole check with its `kind`, or only its differences from the check of the workflow."""
    is_given: bool = False


_Workflow: TypeAlias = _Solo | _Cascade | _Verified | _Ensemble | _Plan | _Turns
_NAMED: Mapping[str, type[Any]] = {kind.__name__: kind for kind in (*get_args(Workflow), *get_args(grader.Check))}
_CLASSES: Mapping[type[Any], type[Any]] = {body: _NAMED[body.__name__[1:]] for body in TaggedBody.__subclasses__()}
_BODIES = {kind: body for body, kind in _CLASSES.items()}
_decode = msgspec.json.Decoder(_Workflow).decode
_decode_solo = msgspec.json.Decoder(Solo).decode


def make_body(value: Tagged) -> msgspec.Struct:
    """Make the struct of a value. Its JSON starts with `kind`."""
    kind = _BODIES[type(value)]
    parts = {name: getattr(value, name) for name in kind.__struct_fields__}
    if parts.get("check") is not None:
        parts["check"] = make_body(parts["check"])
    return cast(msgspec.Struct, kind(**parts))


def dump_tagged(value: Tagged) -> dict[str, JsonValue]:
    """Turn a value into JSON."""
    return cast(dict[str, JsonValue], msgspec.to_builtins(make_body(value)))


def load_tagged(found: Mapping[str, JsonValue]) -> Tagged:
    """Turn JSON into a value; without a `kind` it is a Solo.

    Raises:
        ValueError: the kind is unknown, or a field is missing or wrong.
    """
    try:
        return _make_value(msgspec.convert({"kind": "solo"} | dict(found), _Workflow | _Check))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def decode_workflow(body: bytes) -> Workflow:
    """Turn the JSON of a recorded workflow into a value; without a `kind` it is a Solo.

    Raises:
        msgspec.ValidationError: the kind is unknown, or a field is missing or wrong.
        ValueError: the values of the fields are invalid.
    """
    return cast(Workflow, _make_value(_decode(body))) if b'"kind":' in body else _decode_solo(body)


def make_inputs_body(inputs: RecordedInputs, workflow: Workflow) -> InputsBody:
    """Make the struct of a decision's inputs."""
    return InputsBody(
        setup=inputs.setup,
        kind=inputs.kind,
        sensitivity=tuple(sorted(inputs.sensitivity)),
        is_encoded=inputs.is_encoded,
        check=None if inputs.check is None else _shorten(dump_tagged(inputs.check), _dump_check(workflow)),
        is_given=inputs.is_given,
    )


def read_inputs(body: InputsBody, workflow: Workflow) -> RecordedInputs:
    """Turn the struct of a decision's inputs into a value.

    Raises:
        ValueError: the check is invalid.
    """
    check = body.check
    if check is not None and "kind" not in check:
        check = _dump_check(workflow) | check
    return RecordedInputs(
        setup=body.setup,
        kind=body.kind,
        sensitivity=frozenset(body.sensitivity),
        is_encoded=body.is_encoded,
        check=None if check is None else cast(grader.Check, load_tagged(check)),
        is_given=body.is_given,
    )


def _shorten(check: dict[str, JsonValue], used: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Remove the fields of a stated check that are equal in the workflow's own check."""
    if used.get("kind") != check["kind"]:
        return check
    return {name: part for name, part in check.items() if used[name] != part}


def _dump_check(workflow: Workflow) -> dict[str, JsonValue]:
    """Turn the check of a workflow into JSON; empty if it has none."""
    check = getattr(workflow, "check", None)
    return {} if check is None else dump_tagged(check)


def _make_value(body: msgspec.Struct) -> Tagged:
    parts = msgspec.structs.asdict(body)
    if parts.get("check") is not None:
        parts["check"] = _make_value(parts["check"])
    return cast(Tagged, _CLASSES[type(body)](**parts))
