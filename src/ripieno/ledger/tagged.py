"""Values of closed unions as JSON, each with the name of its class: how the record tells one workflow from another."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TypeAlias, cast, get_type_hints

import msgspec

from ripieno.domain import Cascade, Ensemble, JsonValue, Plan, Solo, Turns, Verified, Workflow
from ripieno.domain.grader import (
    Agreement,
    Check,
    Choice,
    Exact,
    External,
    Human,
    JsonSchema,
    Judge,
    Numeric,
    Pattern,
    UnitTests,
)

Tagged: TypeAlias = Workflow | Check

_KINDS: Mapping[str, type[Tagged]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Solo, Cascade, Verified, Ensemble, Plan, Turns),
        *(Exact, Numeric, Choice, JsonSchema, Pattern, UnitTests, Judge, External, Agreement, Human),
    )
}


def name_kind(value: Tagged) -> str:
    """The name of a value's kind, as the record says it."""
    return type(value).__name__.lower()


def dump_tagged(value: Tagged) -> dict[str, JsonValue]:
    """A value as JSON."""
    found: dict[str, JsonValue] = {"kind": name_kind(value)}
    for field in fields(value):
        part = getattr(value, field.name)
        is_tagged = field.name == "check" and part is not None
        found[field.name] = dump_tagged(cast(Tagged, part)) if is_tagged else msgspec.to_builtins(part)
    return found


def load_tagged(found: Mapping[str, JsonValue]) -> Tagged:
    """A value out of JSON.

    Raises:
        ValueError: it is of no known kind, or not what its kind says.
    """
    name = str(found.get("kind", "solo"))
    if name not in _KINDS:
        raise ValueError(f"unknown kind {name!r}")
    kind = _KINDS[name]
    hints = get_type_hints(kind)
    values: dict[str, object] = {}
    for field in fields(kind):
        if field.name not in found:
            continue
        part = found[field.name]
        if part is None:
            values[field.name] = None
        elif field.name == "check" and isinstance(part, Mapping):
            values[field.name] = load_tagged(part)
        else:
            values[field.name] = msgspec.convert(part, hints[field.name])
    return kind(**values)  # type: ignore[arg-type]  # each value is of its field's type
