"""Wire formats: one reads the requests of clients and writes them answers, or does the reverse for workers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from ripieno.domain import Answer, JsonValue, Message, Task
from ripieno.domain.conversation import NativeRequest
from ripieno.errors import InvalidTask
from ripieno.wires.pieces import Piece

encode = msgspec.json.Encoder().encode
decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
Value = TypeVar("Value")
FREE_TEXT: Mapping[str, JsonValue] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
}
"""Schema of a function that stands for a tool of free text."""
ONLY_WITH_TOOLS = ("tool_choice", "parallel_tool_calls")
"""Fields that servers refuse in a request without tools."""
LONGEST_SHOWN = 40
"""Characters of a wrong value that an error shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRequest:
    """A request of any wire format, in the terms of a task."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, JsonValue], ...]
    """Tools of the client, in the form of chat completions."""
    params: Mapping[str, JsonValue]
    """Fields for the worker, in the names of chat completions."""
    is_stream: bool
    wants_usage: bool = True
    served_tools: tuple[str, ...] = ()
    """See `Task.served_tools`."""
    native: NativeRequest | None = None
    """The fields of the request as received."""
    body: Mapping[str, JsonValue]
    """The whole body of the request."""
    echo: Mapping[str, JsonValue] = field(default_factory=dict)
    """Fields of the response that say what it continues, and whether it is kept."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error, in terms of every wire format."""

    status: int
    type: str
    """Type in the words of OpenAI."""
    code: str
    message: str
    param: str | None = None
    request: str = ""
    """Id of the request."""


class StreamWriter(Protocol):
    """Writes one streamed answer."""

    def add(self, piece: Piece) -> bytes:
        """Write one piece, and before the first one what the format begins with."""
        ...

    def end(self, provenance: JsonValue = None) -> bytes:
        """Write what comes after the last piece; `provenance` is the last event's `ripieno` field, unless None."""
        ...

    def fail(self, fault: Fault) -> bytes:
        """End a stream that broke off. No client can take it for a whole one."""
        ...


class Dialect(Protocol):
    """A wire format towards clients."""

    name: str
    """The name in telemetry, and of values in this form."""
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

    def refuse(self, fault: Fault) -> bytes:
        """Write the body of an error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """The worker that a request goes to, as far as its form depends on it."""

    worker: str
    """Id of the worker. Only its own reasoning goes back to it."""
    model: str
    """The provider's name of the model."""
    most_output: int | None = None
    """Output tokens that the worker can make; None if that is unknown."""
    has_developer_role: bool = False
    takes_effort: bool = False
    """Whether an Anthropic model takes an effort; older ones take a budget of thinking tokens."""


class ReplyReader(Protocol):
    """Reads one streamed reply, event by event."""

    is_over: bool
    """Whether the reply has said that it is complete. Counts may follow."""
    is_finished: bool
    """Whether nothing may follow."""

    def read(self, event: str, data: bytes) -> Sequence[Piece]:
        """Read one event.

        Args:
            event: its name; empty if it has none.
            data: its data.

        Raises:
            BadAnswer: the event reports an error, or is not of this format.
        """
        ...


class Upstream(Protocol):
    """A wire format towards workers."""

    name: str
    """The name of values in this form."""

    def path(self, recipient: Recipient, *, is_stream: bool) -> str:
        """Return the path of a request, behind the provider's base URL."""
        ...

    def write(self, task: Task, recipient: Recipient, *, is_stream: bool) -> dict[str, JsonValue]:
        """Write the body of a request."""
        ...

    def read(self, content: bytes, *, worker: str) -> Answer:
        """Read a whole reply.

        Raises:
            BadAnswer: it is no reply of this format, is empty, or reports an error.
        """
        ...

    def stream(self, *, worker: str) -> ReplyReader:
        """Begin to read a streamed reply."""
        ...


def make_ripieno_field(provenance: JsonValue) -> dict[str, JsonValue]:
    """Make the `ripieno` field of a response; empty if there is no provenance."""
    return {} if provenance is None else {"ripieno": provenance}


def make_error_body(fault: Fault) -> dict[str, JsonValue]:
    """Make OpenAI's error object, all four keys present, with the id of the request beside it."""
    described = {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code}
    return {"error": described, "request_id": fault.request}


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


def overlay(task: Task, wire: str) -> tuple[dict[str, JsonValue], dict[str, JsonValue], bool]:
    """Compare a task with its request as received.

    Returns:
        The fields as received (none if they have another form), the request fields of the task that are not among
        them, and whether the tools as received still hold. A received field that the task no longer has is left out
        by the caller: its value in the second mapping is None.
    """
    native = task.native
    if native is None or native.wire != wire:
        return {}, dict(task.params), False
    changed = {name: value for name, value in task.params.items() if native.params.get(name) != value}
    removed = {name: None for name in native.params if name not in task.params}
    return dict(native.fields), changed | removed, task.tools == native.tools


def text_of(value: JsonValue) -> str:
    """Return a text, and an empty one for any other value."""
    return value if isinstance(value, str) else ""


def fields_of(value: JsonValue) -> Mapping[str, JsonValue]:
    """Return an object's fields; none for any other value."""
    return value if isinstance(value, Mapping) else {}


def items_of(value: JsonValue) -> list[dict[str, JsonValue]]:
    """Return the objects of a list; none for any other value."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def split_data_url(url: str) -> tuple[str, str] | None:
    """Return media type and base64 of a data URL; None for any other URL."""
    head, found, data = url.partition(";base64,")
    return (head.removeprefix("data:"), data) if found and head.startswith("data:") else None


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
