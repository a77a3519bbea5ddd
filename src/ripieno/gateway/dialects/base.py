"""Dialect: one wire format, to and from tasks and answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from ripieno.domain import Answer, JsonValue, Message
from ripieno.errors import InvalidTask, RipienoError
from ripieno.providers import Piece

encode = msgspec.json.Encoder().encode


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
