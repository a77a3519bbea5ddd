"""Dialect: one wire format, which reads requests and writes answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from ripieno.domain import Answer, JsonValue, Message
from ripieno.errors import InvalidTask, RipienoError
from ripieno.providers import Piece

encode = msgspec.json.Encoder().encode
decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
Value = TypeVar("Value")
LONGEST_SHOWN = 40
"""Characters of a wrong value that an error shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRequest:
    """A request of any wire format, in the terms of a task."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, JsonValue], ...]
    params: Mapping[str, JsonValue]
    """Fields for the worker, in the chat-completions form."""
    is_stream: bool
    wants_usage: bool = True
    body: Mapping[str, JsonValue]
    """The whole body of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseSource:
    """Where a response comes from: ids, the worker, the time."""

    request: str
    """Id of the request."""
    decision: str
    worker: str
    created: int
    provenance: JsonValue = None
    """The `ripieno` field of a whole answer; None leaves the field out."""


class StreamWriter(Protocol):
    """Writes one streamed answer."""

    def begin(self) -> bytes:
        """Write what comes before the first piece."""
        ...

    def add(self, piece: Piece) -> bytes:
        """Write one piece."""
        ...

    def end(self, provenance: JsonValue = None) -> bytes:
        """Write what comes after the last piece; `provenance` is the last event's `ripieno` field, unless None."""
        ...

    def fail(self, error: RipienoError) -> bytes:
        """End a stream that broke off. No client can take it for a whole one."""
        ...


class Dialect(Protocol):
    """One wire format."""

    name: str
    """The name in telemetry."""
    comment: bytes
    """Keeps a stream alive; clients ignore it."""

    def read(self, body: Mapping[str, JsonValue]) -> ParsedRequest:
        """Read a request.

        Raises:
            InvalidTask: a field is wrong; `param` names it.
        """
        ...

    def write(self, parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> bytes:
        """Write a whole answer."""
        ...

    def stream(self, parsed: ParsedRequest, source: ResponseSource) -> StreamWriter:
        """Begin a streamed answer."""
        ...

    def refuse(self, error: RipienoError, *, request: str) -> bytes:
        """Write the body of an error."""
        ...


def make_ripieno_field(provenance: JsonValue) -> dict[str, JsonValue]:
    """Make the `ripieno` field of a response; empty if there is no provenance."""
    return {} if provenance is None else {"ripieno": provenance}


def require(body: Mapping[str, JsonValue], name: str, kind: type[Value], *, default: Value) -> Value:
    """Return a field of a body, or the default if the field is missing or null.

    Raises:
        InvalidTask: the field has another type.
    """
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise InvalidTask(f"{name} must be {_KINDS[kind]}, got {type(value).__name__}", param=name)
    return value


def require_sampling(body: Mapping[str, JsonValue]) -> None:
    """Check the fields for sampling and length; null counts as missing. Other fields go to the worker unchecked.

    Raises:
        InvalidTask: a field has a wrong value; `param` names the field.
    """
    for name, value in body.items():
        if name in _SAMPLING and value is not None:
            description, fits = _SAMPLING[name]
            if not fits(value):
                raise InvalidTask(f"{name} must be {description}, got {_shorten(value)}", param=name)


def require_model(body: Mapping[str, JsonValue]) -> str:
    """Return the model that a request names.

    Raises:
        InvalidTask: it names none.
    """
    model = body.get("model")
    if not isinstance(model, str):
        raise InvalidTask("model must be text: a worker, or 'auto'", param="model")
    return model


def list_tools(body: Mapping[str, JsonValue]) -> list[dict[str, JsonValue]]:
    """List the tools of a request.

    Raises:
        InvalidTask: `tools` is not a list, or an item is not an object.
    """
    tools: list[dict[str, JsonValue]] = require(body, "tools", list, default=[])
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise InvalidTask(f"tools[{index}] must be an object", param=f"tools[{index}]")
    return tools


def find_calls(fields: Mapping[str, JsonValue]) -> list[Mapping[str, JsonValue]]:
    """List the tool calls in a worker's message, or their parts in a streamed piece."""
    calls = fields.get("tool_calls")
    return [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, Sequence) else []


def read_call(call: Mapping[str, JsonValue]) -> tuple[int, str, str]:
    """Return index, name and arguments of a tool call, or of a part of one in a streamed piece."""
    index, function = call.get("index"), call.get("function")
    fields = function if isinstance(function, Mapping) else {}
    arguments = fields.get("arguments")
    return (
        index if isinstance(index, int) else 0,
        str(fields.get("name") or ""),
        arguments if isinstance(arguments, str) else "",
    )


def find_reasoning(fields: Mapping[str, JsonValue]) -> str:
    """Return the reasoning text in a worker's message or in a streamed piece."""
    for name in ("reasoning_content", "reasoning"):
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


_KINDS = {str: "text", list: "a list", dict: "an object", bool: "true or false"}


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: JsonValue) -> bool:
    """Return True for a whole number. 5.0 is one, as it is for most servers."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _is_count(value: JsonValue) -> bool:
    return _is_whole(value) and isinstance(value, int | float) and value >= 1


def _is_texts(value: JsonValue) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _shorten(value: JsonValue) -> str:
    """Shorten a wrong value for an error message."""
    if isinstance(value, str):
        return repr(value[:LONGEST_SHOWN])
    if isinstance(value, list | dict):
        return _KINDS[type(value)]
    return encode(value).decode()[:LONGEST_SHOWN]


_NUMBER = ("a number", _is_number)
_WHOLE = ("a whole number", _is_whole)
_COUNT = ("a whole number above 0", _is_count)
_SAMPLING: Mapping[str, tuple[str, Callable[[JsonValue], bool]]] = {
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), _NUMBER),
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens", "n"), _COUNT),
    **dict.fromkeys(("seed", "top_k", "top_logprobs"), _WHOLE),
    "stop": ("text, or a list of texts", lambda value: isinstance(value, str) or _is_texts(value)),
    "stop_sequences": ("a list of texts", _is_texts),
}
"""What fields must be, and the test for it, by the fields' names in all dialects."""
