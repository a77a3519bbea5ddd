"""Untrusted JSON schemas: read with bounds, never fetched, and checked within a step count."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ripieno.domain import JsonValue
from ripieno.tasks.patterns import compile_pattern, occurs

MOST_PARTS = 5_000
"""Most values of a schema; also at one place of an answer, with references followed."""
DEEPEST = 64
"""Most levels of a schema."""
MOST_STEPS = 100_000
"""Most keywords that are evaluated for one answer."""
QUICK_PARTS = 300
"""A schema up to this size is validated when it is read; a larger one when it is used."""
_DATA = frozenset({"enum", "const", "default", "examples"})
_REFUSED = ("$dynamicRef", "$recursiveRef")
_LISTS, _SINGLE, _MAPS = ("allOf", "anyOf", "oneOf"), ("not", "if", "then", "else"), ("dependentSchemas",)
"""Keywords whose schemas apply to the same place of the answer."""

Node = Mapping[str, JsonValue]


class TooMuch(ValueError):
    """Checking an answer took more steps than allowed."""


@dataclass(slots=True)
class _Seen:
    """Findings of a walk through a schema."""

    parts: int = 0
    anchors: dict[str, Node] = field(default_factory=dict)
    schemas: list[Node] = field(default_factory=list)
    keywords: set[str] = field(default_factory=set)


def read_schema(schema: Mapping[str, JsonValue]) -> None:
    """Validate a schema before it is used.

    Raises:
        ValueError: it is not a schema, is too large or too deep, has an external or circular reference, or contains a
            pattern that is refused.
    """
    seen = _walk(schema)
    if {"patternProperties", "unevaluatedProperties"} <= seen.keywords:
        raise ValueError("a schema with both patternProperties and unevaluatedProperties is not supported")
    sizes: dict[int, int] = {}
    for node in seen.schemas:
        _measure(node, schema, seen.anchors, sizes=sizes, above=[])
    if seen.parts <= QUICK_PARTS:
        _compare_with_rules(schema)


def find_fault(schema: Mapping[str, JsonValue], value: JsonValue) -> str | None:
    """Find where and how a value does not fit a schema. Return None if it fits.

    Raises:
        TooMuch: the check takes too many steps.
        ValueError: the schema is refused.
    """
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    read_schema(schema)
    _compare_with_rules(schema)
    token = _steps.set([MOST_STEPS])
    try:
        checker = _make_validator()(dict(schema), registry=Registry())
        fault = next(iter(checker.iter_errors(value)), None)
    except Unresolvable as error:
        raise ValueError(f"the schema refers to {str(error)[:100]}, which it does not contain") from error
    except RecursionError as error:
        raise TooMuch("the answer is nested too deep") from error
    finally:
        _steps.reset(token)
    if fault is None:
        return None
    place = "/".join(str(part) for part in fault.absolute_path) or "the top"
    return f"at {place[:100]}: {fault.message[:200]}"


def _compare_with_rules(schema: Mapping[str, JsonValue]) -> None:
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(dict(schema), format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path) or "its top"
        raise ValueError(f"the schema is wrong at {place[:100]}: {error.message[:200]}") from error


def _walk(schema: Node) -> _Seen:
    """Count the parts and reject unsupported ones. The walk has no recursion, because the depth is untrusted."""
    seen = _Seen()
    waiting: list[tuple[JsonValue, int, str]] = [(dict(schema), 1, "")]
    while waiting:
        value, depth, key = waiting.pop()
        seen.parts += 1
        if seen.parts > MOST_PARTS:
            raise ValueError(f"the schema has more than {MOST_PARTS:,} parts")
        if depth > DEEPEST:
            raise ValueError(f"the schema has more than {DEEPEST} levels")
        if isinstance(value, Mapping):
            _look_at(value, key, seen, is_top=depth == 1)
            waiting += [(each, depth + 1, name) for name, each in value.items() if name not in _DATA]
        elif isinstance(value, list | tuple):
            waiting += [(each, depth + 1, "") for each in value]
    return seen


def _look_at(node: Node, key: str, seen: _Seen, *, is_top: bool) -> None:
    refused = [name for name in _REFUSED if isinstance(node.get(name), str)]
    if refused:
        raise ValueError(f"{refused[0]} is not supported in a schema")
    if not is_top and isinstance(node.get("$id"), str):
        raise ValueError("a schema within a schema cannot have an $id")
    link = node.get("$ref")
    if isinstance(link, str) and not link.startswith("#"):
        raise ValueError(f"the schema refers to {link[:100]!r}; only references within it, '#/...', are supported")
    if isinstance(node.get("pattern"), str):
        compile_pattern(str(node["pattern"]))
    if key == "patternProperties":
        for pattern in node:
            compile_pattern(pattern)
    if isinstance(node.get("$anchor"), str):
        seen.anchors[str(node["$anchor"])] = node
    seen.keywords.update(node)
    seen.schemas.append(node)


def _measure(
    node: JsonValue, top: Node, anchors: Mapping[str, Node], *, sizes: dict[int, int], above: list[int]
) -> int:
    """Count the schemas that apply to one place of an answer, with references followed.

    Raises:
        ValueError: references form a circle at one place of the answer, or there are too many.
    """
    if not isinstance(node, Mapping):
        return 1
    if id(node) in above:
        raise ValueError(f"the schema refers to itself in a circle, at {str(node.get('$ref', ''))[:100]!r}")
    if id(node) in sizes:
        return sizes[id(node)]
    above.append(id(node))
    size = 1
    for inner in _list_same_place(node, top, anchors):
        size += _measure(inner, top, anchors, sizes=sizes, above=above)
        if size > MOST_PARTS:
            raise ValueError(f"the schema has more than {MOST_PARTS:,} parts when its references are followed")
    above.pop()
    sizes[id(node)] = size
    return size


def _list_same_place(node: Node, top: Node, anchors: Mapping[str, Node]) -> Iterator[JsonValue]:
    link = node.get("$ref")
    if isinstance(link, str):
        yield _resolve(link, top, anchors)
    for name in _LISTS:
        inner = node.get(name)
        if isinstance(inner, list | tuple):
            yield from inner
    for name in _SINGLE:
        if name in node:
            yield node[name]
    for name in _MAPS:
        inner = node.get(name)
        if isinstance(inner, Mapping):
            yield from inner.values()


def _resolve(link: str, top: Node, anchors: Mapping[str, Node]) -> JsonValue:
    """Return the part of the schema that a reference names.

    Raises:
        ValueError: there is no such part.
    """
    from urllib.parse import unquote

    place: Any = top
    if link[1:] in anchors:
        return anchors[link[1:]]
    for part in link[1:].split("/")[1:] if link.startswith("#/") else ([link] if link != "#" else []):
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        try:
            place = place[int(name)] if isinstance(place, list | tuple) else place[name]
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"the schema refers to {link[:100]!r}, which it does not contain") from error
    return place


_steps: ContextVar[list[int]] = ContextVar("_steps")


@cache
def _make_validator() -> Any:
    """Make the library's validator with counted steps, patterns on RE2, and unique items in one pass."""
    from jsonschema import Draft202012Validator, validators

    keywords = dict(Draft202012Validator.VALIDATORS) | {
        "pattern": _check_pattern,
        "patternProperties": _check_pattern_properties,
        "additionalProperties": _check_additional,
        "uniqueItems": _check_unique,
    }
    return validators.extend(Draft202012Validator, {name: _count(check) for name, check in keywords.items()})


Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


def _count(check: Keyword) -> Keyword:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any] | None:
        left = _steps.get()
        left[0] -= 1
        if left[0] < 0:
            raise TooMuch(f"the comparison of the answer with the schema takes more than {MOST_STEPS:,} steps")
        return check(validator, value, instance, schema)

    return counted


def _check_pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not occurs(pattern, instance):
        yield ValidationError(f"{instance[:100]!r} does not match {pattern!r}")


def _check_pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for name, value in instance.items():
                if occurs(pattern, name):
                    yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _check_additional(validator: Any, required: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(occurs(pattern, name) for pattern in patterns):
            continue
        if isinstance(required, dict):
            yield from validator.descend(value, required, path=name)
        elif not required:
            yield ValidationError(f"{name[:100]!r} is not one of its properties")


def _check_unique(validator: Any, required: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if required and isinstance(instance, list):
        forms = {json.dumps(_level(each), sort_keys=True) for each in instance}
        if len(forms) < len(instance):
            yield ValidationError("an item occurs twice")


def _level(value: Any) -> Any:
    """Convert a value so that equal JSON values become equal: 1 equals 1.0, and 1 does not equal true."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _level(each) for name, each in value.items()}
    return [_level(each) for each in value] if isinstance(value, list) else value
