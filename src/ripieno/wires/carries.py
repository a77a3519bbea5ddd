"""What each wire format can carry to a worker: the table, and what a task needs of it."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType

from ripieno.domain import Message, Task
from ripieno.domain.conversation import (
    Media,
    MediaKind,
    Opaque,
    Reasoning,
    ServerTool,
    Text,
    ToolCall,
    ToolResult,
)
from ripieno.errors import InvalidTask
from ripieno.wires.content import is_plain_document


class Feature(StrEnum):
    """What a request may hold beyond text, tools and sampling."""

    IMAGE = "image"
    RESULT_IMAGE = "image in a tool result"
    AUDIO = "audio"
    VIDEO = "video"
    DOCUMENT = "document"
    DOCUMENT_URL = "document by address"
    FILE = "uploaded file"
    TOOL_FAILURE = "failure of a tool"
    CUSTOM_TOOL = "tool of free text"
    REASONING = "reasoning"
    SEALED_REASONING = "sealed reasoning"
    CACHE_MARK = "cache mark"
    CITATIONS = "citations"
    SERVED_TOOL = "tool of the vendor"
    SERVED_HISTORY = "history of a tool of the vendor"
    OPAQUE = "unknown part"
    STOP = "stop"
    TOP_K = "top_k"
    SEED = "seed"
    CHOICES = "n"
    LOGPROBS = "logprobs"
    PENALTIES = "penalties"
    LOGIT_BIAS = "logit_bias"
    JSON_OBJECT = "JSON object"
    SCHEMA = "JSON schema"
    EFFORT = "effort"
    VERBOSITY = "verbosity"


class Carriage(StrEnum):
    """How a wire format carries a feature."""

    WHOLE = "whole"
    TOLD = "in another form"
    """The worker gets the content in another form: a picture behind the result, a failure in words."""
    LOST = "lost"


_W, _T, _L = Carriage.WHOLE, Carriage.TOLD, Carriage.LOST
_COLUMNS = ("chat", "messages", "responses", "gemini")
_ROWS: Mapping[Feature, tuple[Carriage, Carriage, Carriage, Carriage]] = {
    Feature.IMAGE: (_W, _W, _W, _W),
    Feature.RESULT_IMAGE: (_T, _W, _W, _T),
    Feature.AUDIO: (_W, _L, _L, _W),
    Feature.VIDEO: (_L, _L, _L, _W),
    Feature.DOCUMENT: (_W, _W, _W, _W),
    Feature.DOCUMENT_URL: (_L, _W, _W, _W),
    Feature.FILE: (_L, _L, _L, _L),
    Feature.TOOL_FAILURE: (_T, _W, _T, _W),
    Feature.CUSTOM_TOOL: (_T, _T, _T, _T),
    Feature.REASONING: (_W, _W, _W, _W),
    Feature.SEALED_REASONING: (_L, _W, _W, _L),
    Feature.CACHE_MARK: (_L, _W, _L, _L),
    Feature.CITATIONS: (_L, _L, _L, _L),
    Feature.SERVED_TOOL: (_L, _L, _L, _L),
    Feature.SERVED_HISTORY: (_T, _T, _T, _T),
    Feature.OPAQUE: (_T, _T, _T, _T),
    Feature.STOP: (_W, _W, _L, _W),
    Feature.TOP_K: (_W, _W, _L, _W),
    Feature.SEED: (_W, _L, _L, _W),
    Feature.CHOICES: (_W, _L, _L, _L),
    Feature.LOGPROBS: (_W, _L, _L, _L),
    Feature.PENALTIES: (_W, _L, _L, _W),
    Feature.LOGIT_BIAS: (_W, _L, _L, _L),
    Feature.JSON_OBJECT: (_W, _L, _W, _W),
    Feature.SCHEMA: (_W, _W, _W, _W),
    Feature.EFFORT: (_W, _W, _W, _W),
    Feature.VERBOSITY: (_W, _L, _W, _L),
}
TABLE: Mapping[str, Mapping[Feature, Carriage]] = MappingProxyType(
    {name: {feature: row[nth] for feature, row in _ROWS.items()} for nth, name in enumerate(_COLUMNS)}
)
"""How each wire format carries what a client of another format sent. Its own clients lose nothing."""
PLAIN = frozenset(
    {
        Feature.STOP, Feature.SEED, Feature.TOP_K, Feature.PENALTIES, Feature.VERBOSITY, Feature.EFFORT,
        Feature.CACHE_MARK,
    }
)  # fmt: skip
"""Features of sampling and price: no reason to prefer another worker."""
_BY_RULE = frozenset({Feature.REASONING, Feature.SEALED_REASONING})
"""Features that stay out by rule: reasoning goes to the worker that gave it, and to no other."""
_ONLY_TEXT = frozenset(Feature) - PLAIN - {Feature.REASONING, Feature.SCHEMA, Feature.JSON_OBJECT}
_PARAMS = {
    "stop": Feature.STOP,
    "top_k": Feature.TOP_K,
    "seed": Feature.SEED,
    "logprobs": Feature.LOGPROBS,
    "top_logprobs": Feature.LOGPROBS,
    "presence_penalty": Feature.PENALTIES,
    "frequency_penalty": Feature.PENALTIES,
    "logit_bias": Feature.LOGIT_BIAS,
    "verbosity": Feature.VERBOSITY,
    "reasoning_effort": Feature.EFFORT,
}


def find_features(task: Task) -> frozenset[Feature]:
    """Find what a task holds beyond text, tools and sampling."""
    found = set(_list_params(task))
    if task.served_tools:
        found.add(Feature.SERVED_TOOL)
    for message in task.messages:
        if not isinstance(message.content, str):
            found.update(_list_features(message))
    return frozenset(found)


def list_lost(task: Task, wire: str) -> tuple[Feature, ...]:
    """List what of a task does not reach a worker of a wire format. A request of its own format loses nothing."""
    table = TABLE.get(wire)
    native = task.native.wire if task.native is not None else _find_wire(task)
    lost = []
    for feature in sorted(find_features(task)):
        if (native and native == wire) or (table is not None and table[feature] is not Carriage.LOST):
            continue
        if feature in _BY_RULE or (table is None and feature not in _ONLY_TEXT):
            continue
        lost.append(feature)
    return tuple(lost)


def require_unserved(task: Task) -> None:
    """Check that a task can do without the tools that the client's vendor runs itself.

    Raises:
        InvalidTask: such a tool is the only one, or the request demands it.
    """
    served, fields = task.served_tools, task.native.fields if task.native is not None else {}
    choice = fields.get("tool_choice")
    demanded = str(choice.get("name") or choice.get("type")) if isinstance(choice, Mapping) else ""
    if not task.tools or demanded in served:
        name = demanded if demanded in served else ", ".join(served)
        raise InvalidTask(
            f"no worker that may take the request runs the tool {name!r}",
            param="tools",
            hint="name a worker of its vendor, or leave the tool out",
        )


def _find_wire(task: Task) -> str:
    """Return the format in which a task without fields of its own was received: chat completions have none."""
    named = (message.native.wire for message in task.messages if message.native is not None)
    return next(named, "")


def _list_params(task: Task) -> Iterator[Feature]:
    for name, feature in _PARAMS.items():
        if task.params.get(name) not in (None, 0, 0.0, False):
            yield feature
    if task.params.get("n") not in (None, 1):
        yield Feature.CHOICES
    form = task.params.get("response_format")
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "json_object":
        yield Feature.JSON_OBJECT
    elif kind == "json_schema":
        yield Feature.SCHEMA


def _list_features(message: Message) -> Iterator[Feature]:
    for part in message.parts:
        if getattr(part, "cache", ""):
            yield Feature.CACHE_MARK
        match part:
            case ToolResult():
                yield from _list_result(part)
            case ToolCall(is_custom=True):
                yield Feature.CUSTOM_TOOL
            case Reasoning(sealed=sealed, signature=signature):
                yield Feature.SEALED_REASONING if sealed or signature else Feature.REASONING
            case ServerTool():
                yield Feature.SERVED_HISTORY
            case Opaque():
                yield Feature.OPAQUE
            case Text(citations=citations) if citations:
                yield Feature.CITATIONS
            case Media():
                yield from _list_media(part)
            case _:
                pass


def _list_result(result: ToolResult) -> Iterator[Feature]:
    if result.is_error:
        yield Feature.TOOL_FAILURE
    for part in result.content:
        if isinstance(part, Media):
            yield from _list_media(part)
            if part.kind is MediaKind.IMAGE:
                yield Feature.RESULT_IMAGE
        elif isinstance(part, Opaque):
            yield Feature.OPAQUE


def _list_media(part: Media) -> Iterator[Feature]:
    if part.file:
        yield Feature.FILE
    match part.kind:
        case MediaKind.IMAGE:
            yield Feature.IMAGE
        case MediaKind.AUDIO:
            yield Feature.AUDIO
        case MediaKind.VIDEO:
            yield Feature.VIDEO
        case MediaKind.DOCUMENT if not is_plain_document(part):
            yield Feature.DOCUMENT_URL if part.url else Feature.DOCUMENT
