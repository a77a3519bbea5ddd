"""Dialect: one wire format, to and from tasks and answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from ripieno.domain import Answer, JsonValue, Message
from ripieno.errors import InvalidTask, RipienoError
from ripieno.providers import Piece

encode = msgspec.json.Encoder().encode
LONGEST_SHOWN = 40
"""Characters of a wrong value that an error shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, in the terms of a task."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, JsonValue], ...]
    params: Mapping[str, JsonValue]
    """Fields for the worker, in the chat-completions form."""
    is_stream: bool
    wants_usage: bool = True
    body: Mapping[str, JsonValue]
    """The request's own body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an answer comes from, as the wire tells it."""

    request: str
    """Id of the request."""
    decision: str
    worker: str
    created: int
    told: JsonValue = None
    """What a whole answer says in its `ripieno` field; None says nothing."""


class Writing(Protocol):
    """Writes one streamed answer."""

    def begin(self) -> bytes:
        """What stands before the first piece."""
        ...

    def add(self, piece: Piece) -> bytes:
        """One piece."""
        ...

    def end(self, told: JsonValue = None) -> bytes:
        """What stands after the last piece; the last event says `told` in its `ripieno` field, unless it is None."""
        ...

    def fail(self, error: RipienoError) -> bytes:
        """The end of a stream that broke off: never to be taken for a whole one."""
        ...


class Dialect(Protocol):
    """One wire format."""

    name: str
    """As telemetry names it."""
    comment: bytes
    """What keeps a stream alive, and means nothing."""

    def read(self, body: Mapping[str, JsonValue]) -> Asked:
        """Read a request.

        Raises:
            InvalidTask: a field is wrong; `param` names it.
        """
        ...

    def write(self, asked: Asked, answer: Answer, origin: Origin) -> bytes:
        """A whole answer."""
        ...

    def stream(self, asked: Asked, origin: Origin) -> Writing:
        """Begin a streamed answer."""
        ...

    def refuse(self, error: RipienoError, *, request: str) -> bytes:
        """The body that tells an error."""
        ...


def say(told: JsonValue) -> dict[str, JsonValue]:
    """The field in which an answer says how it came about; none where there is nothing to say."""
    return {} if told is None else {"ripieno": told}


def require(body: Mapping[str, JsonValue], name: str, kind: type, *, default: JsonValue = None) -> JsonValue:
    """A field of a body, of a kind; the default where it is missing or null.

    Raises:
        InvalidTask: it is of another kind.
    """
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise InvalidTask(f"{name} must be {_KINDS[kind]}, got {type(value).__name__}", param=name)
    return value


def require_sampling(body: Mapping[str, JsonValue]) -> None:
    """Check the fields that say how an answer is sampled and how long it may be; a null counts as missing.

    Every other field goes to the worker unchecked.

    Raises:
        InvalidTask: a field holds something else than it may; `param` names it.
    """
    for name, value in body.items():
        form = _SAMPLING.get(name)
        if form is not None and value is not None and not form.fits(value):
            raise InvalidTask(f"{name} must be {form.told}, got {_show(value)}", param=name)


def require_model(body: Mapping[str, JsonValue]) -> str:
    """The model that a request must name.

    Raises:
        InvalidTask: it names none.
    """
    model = body.get("model")
    if not isinstance(model, str):
        raise InvalidTask("model must be text: a worker, or 'auto'", param="model")
    return model


def list_tools(body: Mapping[str, JsonValue]) -> list[dict[str, JsonValue]]:
    """The tools of a request, each an object.

    Raises:
        InvalidTask: they are no list, or one is no object.
    """
    tools = require(body, "tools", list, default=[])
    assert isinstance(tools, list)
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise InvalidTask(f"tools[{index}] must be an object", param=f"tools[{index}]")
    return tools


def find_calls(fields: Mapping[str, JsonValue]) -> list[Mapping[str, JsonValue]]:
    """The tool calls of a worker's message, or the parts of them in a piece of one."""
    calls = fields.get("tool_calls")
    return [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, Sequence) else []


def find_reasoning(fields: Mapping[str, JsonValue]) -> str:
    """What a worker tells of its reasoning, in a message or in a piece of one."""
    for name in ("reasoning_content", "reasoning"):
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


_KINDS = {str: "text", list: "a list", dict: "an object", bool: "true or false", int: "a whole number"}


@dataclass(frozen=True, slots=True)
class _Form:
    """What a field may hold."""

    told: str
    fits: Callable[[JsonValue], bool]


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: JsonValue) -> bool:
    """Whether it is a whole number; 5.0 is one, as it is for most servers."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _is_count(value: JsonValue) -> bool:
    return _is_whole(value) and isinstance(value, int | float) and value >= 1


def _is_texts(value: JsonValue) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _show(value: JsonValue) -> str:
    """A wrong value as an error shows it, whatever its length."""
    if isinstance(value, str):
        return repr(value[:LONGEST_SHOWN])
    if isinstance(value, list | dict):
        return _KINDS[type(value)]
    return encode(value).decode()[:LONGEST_SHOWN]


_NUMBER = _Form("a number", _is_number)
_WHOLE = _Form("a whole number", _is_whole)
_COUNT = _Form("a whole number above 0", _is_count)
_SAMPLING: Mapping[str, _Form] = {
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), _NUMBER),
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens", "n"), _COUNT),
    **dict.fromkeys(("seed", "top_k", "top_logprobs"), _WHOLE),
    "stop": _Form("text, or a list of texts", lambda value: isinstance(value, str) or _is_texts(value)),
    "stop_sequences": _Form("a list of texts", _is_texts),
}
"""The fields by their names in all dialects."""
