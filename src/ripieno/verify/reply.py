"""Read one number from a judge's reply: from one JSON object, or from a reply that contains only the number."""

import json
import re
from collections.abc import Iterator

from pydantic import JsonValue, TypeAdapter, ValidationError

LONGEST_REPLY = 10_000
"""Characters read from the end of a reply, where a judge that thinks aloud concludes."""
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_OBJECT = re.compile(r'\{\s*"')
_OUTER = " \t\r\n*_`'\".!#"
_WHOLE = TypeAdapter(int)


def read_choice(text: str, *, key: str, most: int) -> int | None:
    """Find the number from 1 to `most` that a reply states under `key`.

    Args:
        text: the reply: `{"grade": 4}` alone, in a fence, or between words; or only `4`, `4/5` or `grade: 4`.
        key: the field's name.
        most: the largest number allowed.

    Returns:
        The number; None if the reply states none, several different ones, or one out of range.
    """
    reply = _THOUGHT.sub(" ", text)[-LONGEST_REPLY:]
    stated = list(_find_stated(reply, key))
    if not stated:
        return _read_alone(reply, key=key, most=most)
    numbers = {_to_whole(value) for value in stated}
    only = numbers.pop() if len(numbers) == 1 else None
    return only if only is not None and 1 <= only <= most else None


def _find_stated(reply: str, key: str) -> Iterator[JsonValue]:
    """Yield each value that a JSON object of the reply has under the key. Objects may be nested, or between words."""
    decoder = json.JSONDecoder(object_pairs_hook=_refuse_twice, parse_constant=refuse_constant)
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
        raise ValueError("a key occurs twice")
    return made


def refuse_constant(name: str) -> JsonValue:
    """Refuse `NaN` and `Infinity`, which Python's parser would accept."""
    raise ValueError(f"{name} is not JSON")


def _to_whole(value: JsonValue) -> int | None:
    """Return a value as an integer; None for `true` and for 4.5."""
    if isinstance(value, bool):
        return None
    try:
        return _WHOLE.validate_python(value)
    except ValidationError:
        return None


def _read_alone(reply: str, *, key: str, most: int) -> int | None:
    """Return the number of a reply that contains nothing else."""
    form = rf"(?:{key}\W{{0,5}})?([1-{most}])(?:\s*(?:/|of|out of)\s*{most})?"
    match = re.fullmatch(form, reply.strip(_OUTER), re.IGNORECASE)
    return int(match.group(1)) if match else None
