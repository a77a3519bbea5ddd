"""Read one number out of a judge's reply: from one JSON object, or from a reply that is the number and nothing else."""

import json
import re
from collections.abc import Iterator

from pydantic import JsonValue, TypeAdapter, ValidationError

LONGEST_REPLY = 10_000
"""Characters of a reply that are read, from its end: a judge that thinks aloud concludes there."""
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_OBJECT = re.compile(r'\{\s*"')
_OUTER = " \t\r\n*_`'\".!#"
_WHOLE = TypeAdapter(int)


def read_choice(text: str, *, key: str, most: int) -> int | None:
    """Find the number from 1 to `most` that a reply states under `key`.

    Args:
        text: the reply: `{"grade": 4}` alone, in a fence, or between words; or `4`, `4/5`, `grade: 4` and nothing else.
        key: the field's name.
        most: the largest number allowed.

    Returns:
        None where the reply states no such number, several different ones, or one out of range.
    """
    reply = _THOUGHT.sub(" ", text)[-LONGEST_REPLY:]
    stated = list(_find_stated(reply, key))
    if not stated:
        return _read_alone(reply, key=key, most=most)
    numbers = {_to_whole(value) for value in stated}
    only = numbers.pop() if len(numbers) == 1 else None
    return only if only is not None and 1 <= only <= most else None


def _find_stated(reply: str, key: str) -> Iterator[JsonValue]:
    """Each value that a JSON object of the reply holds under the key; objects may stand in others, or in words."""
    decoder = json.JSONDecoder(object_pairs_hook=_refuse_twice, parse_constant=_refuse_constant)
    place = 0
    while (found := _OBJECT.search(reply, place)) is not None:
        place = found.end()
        try:
            value, end = decoder.raw_decode(reply, found.start())
        except (ValueError, RecursionError):
            continue
        if key in value:
            place = end
            yield value[key]


def _refuse_twice(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice")
    return made


def _refuse_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not JSON")


def _to_whole(value: JsonValue) -> int | None:
    """A value as a whole number; `true` is none, and neither is 4.5."""
    if isinstance(value, bool):
        return None
    try:
        return _WHOLE.validate_python(value)
    except ValidationError:
        return None


def _read_alone(reply: str, *, key: str, most: int) -> int | None:
    """The number of a reply that states it and nothing else."""
    form = rf"(?:{key}\W{{0,5}})?([1-{most}])(?:\s*(?:/|of|out of)\s*{most})?"
    match = re.fullmatch(form, reply.strip(_OUTER), re.IGNORECASE)
    return int(match.group(1)) if match else None
