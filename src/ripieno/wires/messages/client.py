"""Anthropic's messages towards clients."""

from collections.abc import Iterator, Mapping, Sequence

from ripieno.domain import Answer, JsonValue, Message, Usage
from ripieno.domain.conversation import MediaKind, Native, NativeRequest, Part, Reasoning, Text
from ripieno.domain.run import CHARACTERS_PER_TOKEN
from ripieno.errors import InvalidTask
from ripieno.wires.base import (
    Fault,
    ParsedRequest,
    ResponseSource,
    encode,
    fields_of,
    list_tools,
    make_ripieno_field,
    require,
    require_model,
    require_sampling,
    text_of,
)
from ripieno.wires.content import make_content
from ripieno.wires.messages.parts import WIRE, read_blocks, read_message, write_blocks
from ripieno.wires.pieces import CallPiece, CallSorter, Piece
from ripieno.wires.sse import pack_event
from ripieno.wires.usage import make_messages_usage

OWN_FIELDS = frozenset({"model", "messages", "stream", "ripieno"})
_TRANSLATED = frozenset(
    {
        "system", "tools", "tool_choice", "stop_sequences", "metadata", "thinking", "output_config", "output_format",
        "context_management", "container", "mcp_servers", "betas", "service_tier", "cache_control", "inference_geo",
        "speed",
    }
)  # fmt: skip
"""Fields that are translated, or that only Anthropic's own service knows. All others go to every worker."""
TOKENS_OF_IMAGE = 1500
BUDGETS = (("low", 4_096), ("medium", 16_384), ("high", 1_000_000))
"""Efforts by the largest budget of thinking tokens."""
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class MessagesDialect:
    """`POST /v1/messages`."""

    name = WIRE
    comment = b'event: ping\ndata: {"type":"ping"}\n\n'

    def read(self, body: Mapping[str, JsonValue]) -> ParsedRequest:
        """Read a request."""
        model = require_model(body)
        require_sampling(body)
        given = require(body, "messages", list, default=[])
        if not given:
            raise InvalidTask("messages must not be empty", param="messages")
        messages = list(_read_system(body.get("system")))
        for index, raw in enumerate(given):
            messages.extend(read_message(raw, f"messages[{index}]"))
        if not messages:
            raise InvalidTask("messages must hold some content", param="messages")
        tools, served = _read_tools(body)
        params = _read_params(body, tools)
        fields = {name: value for name, value in body.items() if name not in OWN_FIELDS}
        return ParsedRequest(
            model=model,
            messages=tuple(messages),
            tools=tools,
            params=params,
            is_stream=require(body, "stream", bool, default=False),
            served_tools=served,
            native=NativeRequest(wire=WIRE, fields=fields, tools=tools, params=params),
            body=body,
        )

    def write(self, parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> bytes:
        """Write a whole message: the worker's own with the worker's id as model, or one made from the answer."""
        added: dict[str, JsonValue] = {"model": source.worker} | make_ripieno_field(source.provenance)
        if answer.native is not None and answer.native.wire == WIRE:
            return encode({**fields_of(answer.native.raw), **added})
        stop = STOPS.get(answer.finish_reason, "end_turn")
        blocks = _complete_blocks(answer.parts)
        message = _make_message(source, blocks, stop=stop, usage=make_messages_usage(answer.usage))
        return encode(message | added)

    def stream(self, parsed: ParsedRequest, source: ResponseSource) -> "MessagesStreamWriter":
        """Begin a stream of named events."""
        return MessagesStreamWriter(parsed, source)

    def refuse(self, fault: Fault) -> bytes:
        """Write Anthropic's error object."""
        return encode(_make_error(fault))


class MessagesStreamWriter:
    """Writes named events: each block is opened, filled and closed before the next one."""

    def __init__(self, parsed: ParsedRequest, source: ResponseSource) -> None:
        self._source = source
        self._guess = count_tokens(parsed)
        self._has_begun = False
        self._block: tuple[str, int] | None = None
        """Kind of the open block, and the place of its tool call."""
        self._index = -1
        self._stop = "end_turn"
        self._usage = Usage()
        self._sorter = CallSorter()
        self._is_native = False

    def add(self, piece: Piece) -> bytes:
        """Write the events of one piece."""
        if piece.usage is not None:
            self._usage = piece.usage
        native = piece.native
        if native is not None and native.wire == WIRE:
            return self._pass_on(fields_of(native.raw))
        if piece.finish_reason:
            self._stop = STOPS.get(piece.finish_reason, "end_turn")
        if not piece.has_content and not piece.signature:
            return b""
        events = [self._begin()]
        if piece.reasoning or piece.signature:
            events.append(self._open("thinking", 0, {"type": "thinking", "thinking": "", "signature": ""}))
        if piece.reasoning:
            events.append(self._fill({"type": "thinking_delta", "thinking": piece.reasoning}))
        if piece.signature:
            events.append(self._fill({"type": "signature_delta", "signature": piece.signature}))
        text = piece.text + piece.refusal
        if text:
            events.append(self._open("text", 0, _EMPTY_TEXT))
            events.append(self._fill({"type": "text_delta", "text": text}))
        events += [self._add_call(part) for part in piece.calls]
        events += [self._add_part(part) for part in piece.parts]
        return b"".join(events)

    def end(self, provenance: JsonValue = None) -> bytes:
        """Close the last block and the message."""
        added = make_ripieno_field(provenance)
        if self._is_native:
            return _event("message_stop", **added)
        delta = {"stop_reason": self._stop, "stop_sequence": None}
        changed = _event("message_delta", delta=delta, usage=make_messages_usage(self._usage))
        return self._begin() + self._close_calls() + changed + _event("message_stop", **added)

    def fail(self, fault: Fault) -> bytes:
        """Write an error event, and no `message_stop`."""
        return pack_event("error", encode(_make_error(fault)))

    def _begin(self) -> bytes:
        """Write the empty message at first; its input tokens are an estimate until the end."""
        if self._has_begun:
            return b""
        self._has_begun = True
        usage = make_messages_usage(Usage(input_tokens=self._guess, output_tokens=0))
        message = _make_message(self._source, [], stop=None, usage=usage) | {"model": self._source.worker}
        return _event("message_start", message=message)

    def _pass_on(self, raw: Mapping[str, JsonValue]) -> bytes:
        """Pass on an event of the worker. Its end waits for the provenance."""
        self._is_native = self._has_begun = True
        kind = text_of(raw.get("type"))
        if kind == "message_stop":
            return b""
        if kind == "message_start":
            raw = {**raw, "message": {**fields_of(raw.get("message")), "model": self._source.worker}}
        return pack_event(kind, encode(raw))

    def _add_call(self, call: CallPiece) -> bytes:
        return b"".join(map(self._write_call, self._sorter.add(call)))

    def _write_call(self, call: CallPiece) -> bytes:
        named = {"id": call.id or f"toolu_{call.index}", "name": f"{call.namespace}{call.name}", "input": {}}
        events = self._open("tool_use", call.index, {"type": "tool_use", **named, **_OF_CALLS})
        if call.arguments:
            events += self._fill({"type": "input_json_delta", "partial_json": call.arguments})
        return events

    def _add_part(self, part: Part) -> bytes:
        """Write the blocks of a part that arrived whole."""
        events = self._close_calls()
        for block in _complete_blocks([part]):
            self._index += 1
            events += _event("content_block_start", index=self._index, content_block=block)
            events += _event("content_block_stop", index=self._index)
        return events

    def _open(self, kind: str, place: int, block: Mapping[str, JsonValue]) -> bytes:
        if self._block == (kind, place):
            return b""
        events = self._close() if kind == "tool_use" else self._close_calls()
        self._block, self._index = (kind, place), self._index + 1
        return events + _event("content_block_start", index=self._index, content_block=block)

    def _fill(self, delta: Mapping[str, JsonValue]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _close_calls(self) -> bytes:
        """Close the open block, and write the tool calls that wait."""
        return b"".join(map(self._write_call, self._sorter.flush())) + self._close()

    def _close(self) -> bytes:
        if self._block is None:
            return b""
        self._block = None
        return _event("content_block_stop", index=self._index)


def count_tokens(parsed: ParsedRequest) -> int:
    """Estimate a request's tokens from its characters; each image counts 1,500 tokens."""
    characters, images = 0, 0
    for message in parsed.messages:
        characters += len(message.text)
        characters += sum(len(call.name) + len(call.arguments) for call in message.calls)
        characters += sum(len(p.text) + len(p.sealed) for p in message.parts if isinstance(p, Reasoning))
        images += message.count_media(MediaKind.IMAGE) + message.count_media(MediaKind.DOCUMENT)
    characters += len(encode(list(parsed.tools))) if parsed.tools else 0
    return 1 + int(characters / CHARACTERS_PER_TOKEN) + TOKENS_OF_IMAGE * images


def _make_message(
    source: ResponseSource, blocks: list[JsonValue], *, stop: str | None, usage: dict[str, JsonValue]
) -> dict[str, JsonValue]:
    return {
        "id": f"msg_{source.decision}",
        "type": "message",
        "role": "assistant",
        "model": source.worker,
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": usage,
    }


_OF_CALLS: Mapping[str, JsonValue] = {"caller": {"type": "direct"}}
"""Fields of a tool call in an answer, beside those of a request."""
_OF_TEXTS: Mapping[str, JsonValue] = {"citations": None}
_EMPTY_TEXT: Mapping[str, JsonValue] = {"type": "text", "text": "", **_OF_TEXTS}


def _complete_blocks(parts: Sequence[Part]) -> list[JsonValue]:
    """Write parts as the blocks of an answer, with the fields that only answers have."""
    added = {"text": _OF_TEXTS, "tool_use": _OF_CALLS}
    blocks = map(fields_of, write_blocks(parts))
    return [{**added.get(text_of(block.get("type")), {}), **block} for block in blocks]


def _make_error(fault: Fault) -> dict[str, JsonValue]:
    kind = ERROR_TYPES.get(fault.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": fault.message}, "request_id": fault.request}


def _read_system(system: JsonValue) -> Iterator[Message]:
    if system is None or isinstance(system, str):
        if system:
            yield Message(role="system", content=system)
        return
    if not isinstance(system, list) or not all(isinstance(block, dict) for block in system):
        raise InvalidTask("system must be text, or a list of text blocks", param="system")
    parts = read_blocks(system)
    if all(isinstance(part, Text) and not part.cache for part in parts):
        text = "\n\n".join(part.text for part in parts if isinstance(part, Text))
        yield Message(role="system", content=text, native=Native(WIRE, system))
    elif parts:
        yield Message(role="system", content=make_content(parts), native=Native(WIRE, system))


def _read_tools(
    body: Mapping[str, JsonValue],
) -> tuple[tuple[Mapping[str, JsonValue], ...], tuple[str, ...]]:
    """Read tools with a schema, and the names of the others: Anthropic's own service runs them."""
    tools: list[Mapping[str, JsonValue]] = []
    served = []
    for tool in list_tools(body):
        if "input_schema" not in tool:
            served.append(text_of(tool.get("name")) or text_of(tool.get("type")))
            continue
        function = {"name": tool.get("name"), "parameters": tool["input_schema"]}
        if tool.get("description"):
            function["description"] = tool["description"]
        if "strict" in tool:
            function["strict"] = tool["strict"]
        tools.append({"type": "function", "function": function})
    return tuple(tools), tuple(served)


def _read_params(body: Mapping[str, JsonValue], tools: Sequence[Mapping[str, JsonValue]]) -> dict[str, JsonValue]:
    params = {name: value for name, value in body.items() if name not in OWN_FIELDS and name not in _TRANSLATED}
    if body.get("stop_sequences"):
        params["stop"] = body["stop_sequences"]
    metadata, config = fields_of(body.get("metadata")), fields_of(body.get("output_config"))
    if metadata.get("user_id"):
        params["user"] = metadata["user_id"]
    effort = text_of(config.get("effort")) or _read_budget(fields_of(body.get("thinking")))
    if effort:
        params["reasoning_effort"] = effort
    form = fields_of(config.get("format")) or fields_of(body.get("output_format"))
    if form.get("type") == "json_schema":
        schema = {"name": "answer", "schema": form.get("schema"), "strict": True}
        params["response_format"] = {"type": "json_schema", "json_schema": schema}
    params |= _read_choice(fields_of(body.get("tool_choice")), tools)
    return params


def _read_choice(choice: Mapping[str, JsonValue], tools: Sequence[Mapping[str, JsonValue]]) -> dict[str, JsonValue]:
    """Read the choice of a tool, if workers get tools, and this one among them."""
    if not choice or not tools:
        return {}
    read: dict[str, JsonValue] = {}
    kinds = {"auto": "auto", "any": "required", "none": "none"}
    kind, name = text_of(choice.get("type")), choice.get("name")
    if kind in kinds:
        read["tool_choice"] = kinds[kind]
    elif name in [fields_of(tool.get("function")).get("name") for tool in tools]:
        read["tool_choice"] = {"type": "function", "function": {"name": name}}
    if choice.get("disable_parallel_tool_use") is True:
        read["parallel_tool_calls"] = False
    return read


def _read_budget(thinking: Mapping[str, JsonValue]) -> str:
    """Return the effort that a budget of thinking tokens stands for; empty if none is asked for."""
    tokens = thinking.get("budget_tokens")
    if thinking.get("type") != "enabled" or not isinstance(tokens, int):
        return ""
    return next((effort for effort, most in BUDGETS if tokens <= most), "high")


def _event(kind: str, **fields: JsonValue) -> bytes:
    return pack_event(kind, encode({"type": kind, **fields}))
