"""Decoding of what workers send: JSON with small faults is repaired, and the result says so."""

import json
import re
from dataclasses import dataclass

import msgspec

from ripieno.domain import JsonValue
from ripieno.errors import BadAnswer

LONGEST_ERROR = 300
LONGEST_CODE = 80

_decode = msgspec.json.Decoder().decode
_COMMENT = re.compile(rb"\A(?:\s*:[^\n]*\n)+")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A JSON object."""

    fields: dict[str, JsonValue]
    is_exact: bool
    """Whether it was correct JSON as it came."""


def decode_object(content: bytes, *, worker: str, what: str) -> Decoded:
    """Decode a JSON object. Comments before it, bad UTF-8, and `NaN` or `Infinity` (read as null) are repaired.

    Args:
        content: the bytes.
        worker: for the error.
        what: what it should be, for the error.

    Raises:
        BadAnswer: it is no JSON object.
    """
    try:
        found: JsonValue = _decode(content)
        is_exact = True
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found, is_exact = _repair(content), False
    if not isinstance(found, dict):
        shown = content[:80].decode("utf-8", "replace")
        raise BadAnswer(f"{worker!r} did not answer with {what}: {shown!r}", worker=worker)
    return Decoded(found, is_exact)


def _repair(content: bytes) -> JsonValue:
    text = _COMMENT.sub(b"", content).decode("utf-8", "replace")
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def read_error(content: bytes) -> str:
    """Return the message of an error body in one short line."""
    try:
        body = _decode(content)
        said = body["error"] if isinstance(body, dict) and "error" in body else body
        text = said["message"] if isinstance(said, dict) and "message" in said else said
    except (msgspec.MsgspecError, KeyError, TypeError, UnicodeDecodeError):
        text = content.decode("utf-8", "replace")
    return " ".join(str(text).split())[:LONGEST_ERROR] or "nothing"


def read_code(content: bytes) -> str | None:
    """Return the code of an error body, if it has one."""
    try:
        error = _decode(content)["error"]
        code = error.get("code") or error.get("type")
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        return None
    return code if isinstance(code, str) and len(code) <= LONGEST_CODE else None
