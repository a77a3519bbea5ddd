"""Anthropic's messages: blocks to chat-completions messages, and answers back to blocks."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ripieno.domain import Answer, JsonValue, Message, Usage
from ripieno.domain.run import CHARACTERS_PER_TOKEN
from ripieno.errors import InvalidTask, RipienoError
from ripieno.gateway.dialects.base import (
    ParsedRequest,
    ResponseSource,
    encode,
    find_calls,
    find_reasoning,
    list_tools,
    make_ripieno_field,
    read_call,
    require,
    require_model,
    require_sampling,
)
from ripieno.gateway.errors import find_wire, format_message
from ripieno.providers import Piece

OWN_FIELDS = frozenset(
    {
        "model", "messages", "system", "tools", "tool_choice", "stream", "stop_sequences", "metadata", "ripieno",
        "thinking", "output_config", "output_format", "context_management", "container", "mcp_servers", "betas",
        "service_tier", "cache_control", "inference_geo", "speed",
    }
)  # fmt: skip
"""Fields that are translated, or that only Anthropic's own service knows. All others go to the worker."""
TOKENS_OF_IMAGE = 1500
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
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class MessagesDialect:
    """`POST /v1/messages`."""

    name = "messages"
    comment = b'event: ping\ndata: {"type":"ping"}\n\n'

    def read(self, body: Mapping[str, JsonValue]) -> ParsedRequest:
        """Read a request."""
        model = require_model(body)
        require_sampling(body)
        given = require(body, "messages", list, default=[])
        if not given:
            raise InvalidTask("messages must not be empty", param="messages")
        messages = [Message(role="system", content=text)] if (text := _read_system(body.get("system"))) else []
        for index, raw in enumerate(given):
            messages.extend(_read_message(raw, f"messages[{index}]"))
        return ParsedRequest(
            model=model,
            messages=tuple(messages),
            tools=tuple(_read_tools(body)),
            params=_read_params(body),
            is_stream=require(body, "stream", bool, default=False),
            body=body,
        )

    def write(self, parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> bytes:
        """Write a whole message."""
        blocks: list[JsonValue] = []
        thinking = find_reasoning(answer.message)
        if thinking:
            blocks.append({"type": "thinking", "thinking": thinking, "signature": ""})
        if answer.text:
            blocks.append({"type": "text", "text": answer.text})
        blocks += [_make_tool_use(call) for call in find_calls(answer.message)]
        stop = _STOPS.get(answer.finish_reason, "end_turn")
        message = _make_message(source, blocks, stop=stop, usage=make_usage(answer.usage))
        return encode(message | make_ripieno_field(source.provenance))

    def stream(self, parsed: ParsedRequest, source: ResponseSource) -> "MessagesStreamWriter":
        """Begin a stream of named events."""
        return MessagesStreamWriter(parsed, source)

    def refuse(self, error: RipienoError, *, request: str) -> bytes:
        """Write Anthropic's error object."""
        return encode(_make_error(error, request=request))


class MessagesStreamWriter:
    """Writes named events: each block is opened, filled and closed before the next one."""

    def __init__(self, parsed: ParsedRequest, source: ResponseSource) -> None:
        self._source = source
        self._guess = count_tokens(parsed)
        self._block: tuple[str, int] | None = None
        """Kind of the open block, and the index of its tool call."""
        self._index = -1
        self._stop = "end_turn"
        self._usage = Usage()

    def begin(self) -> bytes:
        """Write the empty message; its input tokens are an estimate until the end."""
        usage: dict[str, JsonValue] = {"input_tokens": self._guess, "output_tokens": 0}
        return _event("message_start", message=_make_message(self._source, [], stop=None, usage=usage))

    def add(self, piece: Piece) -> bytes:
        """Write the events of one piece."""
        if piece.usage is not None:
            self._usage = piece.usage
        if piece.finish_reason:
            self._stop = _STOPS.get(piece.finish_reason, "end_turn")
        if not piece.delta:
            return b""
        events = []
        thinking = find_reasoning(piece.delta)
        if thinking:
            events.append(self._open("thinking", 0, {"type": "thinking", "thinking": "", "signature": ""}))
            events.append(self._fill({"type": "thinking_delta", "thinking": thinking}))
        if piece.text:
            events.append(self._open("text", 0, {"type": "text", "text": ""}))
            events.append(self._fill({"type": "text_delta", "text": piece.text}))
        events += [self._add_call(part) for part in find_calls(piece.delta)]
        return b"".join(events)

    def end(self, provenance: JsonValue = None) -> bytes:
        """Close the last block and the message."""
        delta = {"stop_reason": self._stop, "stop_sequence": None}
        changed = _event("message_delta", delta=delta, usage=make_usage(self._usage))
        return self._close() + changed + _event("message_stop", **make_ripieno_field(provenance))

    def fail(self, error: RipienoError) -> bytes:
        """Write an error event, and no `message_stop`."""
        return b"event: error\ndata: %b\n\n" % encode(_make_error(error, request=self._source.request))

    def _add_call(self, call: Mapping[str, JsonValue]) -> bytes:
        place, name, part = read_call(call)
        events = self._open(
            "tool_use", place, {"type": "tool_use", "id": call.get("id") or f"toolu_{place}", "name": name, "input": {}}
        )
        if part:
            events += self._fill({"type": "input_json_delta", "partial_json": part})
        return events

    def _open(self, kind: str, place: int, block: Mapping[str, JsonValue]) -> bytes:
        if self._block == (kind, place):
            return b""
        events = self._close()
        self._block, self._index = (kind, place), self._index + 1
        return events + _event("content_block_start", index=self._index, content_block=block)

    def _fill(self, delta: Mapping[str, JsonValue]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> bytes:
        if self._block is None:
            return b""
        self._block = None
        return _event("content_block_stop", index=self._index)


def count_tokens(parsed: ParsedRequest) -> int:
    """Estimate a request's tokens from its characters; each image counts 1,500 tokens."""
    characters = sum(len(message.text) for message in parsed.messages)
    characters += sum(len(encode(message.extra)) for message in parsed.messages if message.extra)
    characters += len(encode(list(parsed.tools))) if parsed.tools else 0
    images = sum(message.count_parts("image") for message in parsed.messages)
    return 1 + int(characters / CHARACTERS_PER_TOKEN) + TOKENS_OF_IMAGE * images


def make_usage(usage: Usage) -> dict[str, JsonValue]:
    """Make the token counts in Anthropic's names, which count cached tokens separately."""
    cached = usage.cached_tokens or 0
    return {
        "input_tokens": max((usage.input_tokens or 0) - cached, 0),
        "output_tokens": usage.output_tokens or 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
    }


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
        "usage": usage,
    }


def _make_error(error: RipienoError, *, request: str) -> dict[str, JsonValue]:
    kind = ERROR_TYPES.get(find_wire(error).status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": format_message(error)}, "request_id": request}


def _read_system(system: JsonValue) -> str:
    if system is None or isinstance(system, str):
        return system or ""
    if not isinstance(system, list):
        raise InvalidTask("system must be text, or a list of text blocks", param="system")
    return "\n\n".join(_text_of(block) for block in system)


def _read_message(raw: JsonValue, place: str) -> Iterator[Message]:
    if not isinstance(raw, dict):
        raise InvalidTask(f"{place} must be an object", param=place)
    role, content = raw.get("role"), raw.get("content")
    if role not in ("user", "assistant", "system"):
        raise InvalidTask(f"{place}.role must be 'user' or 'assistant'", param=f"{place}.role")
    if isinstance(content, str):
        yield Message(role=role, content=content)
        return
    if not isinstance(content, list):
        raise InvalidTask(f"{place}.content must be text, or a list of blocks", param=f"{place}.content")
    blocks = [block for block in content if isinstance(block, dict)]
    if len(blocks) < len(content):
        raise InvalidTask(f"every item of {place}.content must be an object", param=f"{place}.content")
    yield from _read_assistant(blocks) if role == "assistant" else _read_user(blocks, role)


def _read_assistant(blocks: Sequence[dict[str, JsonValue]]) -> Iterator[Message]:
    """Read text and tool calls. Thinking is left out: the next worker may be another one."""
    text = "".join(_text_of(block) for block in blocks if block.get("type") == "text")
    calls = [
        {
            "id": block.get("id"),
            "type": "function",
            "function": {"name": block.get("name"), "arguments": encode(block.get("input") or {}).decode()},
        }
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    yield Message(role="assistant", content=text or None, extra={"tool_calls": calls} if calls else {})


def _read_user(blocks: Sequence[dict[str, JsonValue]], role: str) -> Iterator[Message]:
    """Yield tool results first, because chat completions want them right after the calls."""
    parts: list[JsonValue] = []
    for block in blocks:
        match block.get("type"):
            case "tool_result":
                yield Message(
                    role="tool",
                    content=_read_result(block.get("content")),
                    extra={"tool_call_id": block.get("tool_use_id")},
                )
            case "text":
                parts.append({"type": "text", "text": _text_of(block)})
            case "image":
                parts.append({"type": "image_url", "image_url": {"url": _read_image(block.get("source"))}})
            case "document":
                parts.append({"type": "text", "text": _read_document(block)})
            case _:
                pass  # workers do not know further kinds
    if len(parts) == 1 and isinstance(parts[0], dict) and "text" in parts[0]:
        yield Message(role=role, content=parts[0]["text"])
    elif parts:
        yield Message(role=role, content=parts)


def _read_result(content: JsonValue) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return encode(content).decode()
    return "\n".join(_text_of(part) if isinstance(part, dict) and "text" in part else "[image]" for part in content)


def _read_image(source: JsonValue) -> str:
    if isinstance(source, dict):
        if source.get("type") == "base64":
            return f"data:{source.get('media_type')};base64,{source.get('data')}"
        if isinstance(source.get("url"), str):
            return str(source["url"])
    raise InvalidTask("an image's source must be base64, or a url", param="messages")


def _read_document(block: Mapping[str, JsonValue]) -> str:
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "text":
        return str(source.get("data") or "")
    raise InvalidTask("documents must be plain text", param="messages", hint="send the text itself")


def _read_tools(body: Mapping[str, JsonValue]) -> Iterator[Mapping[str, JsonValue]]:
    """Read tools with a schema; the others run in Anthropic's own service only."""
    for tool in list_tools(body):
        if "input_schema" in tool:
            function = {"name": tool.get("name"), "parameters": tool["input_schema"]}
            if tool.get("description"):
                function["description"] = tool["description"]
            if "strict" in tool:
                function["strict"] = tool["strict"]
            yield {"type": "function", "function": function}


def _read_params(body: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    params = {name: value for name, value in body.items() if name not in OWN_FIELDS}
    if body.get("stop_sequences"):
        params["stop"] = body["stop_sequences"]
    metadata, effort = body.get("metadata"), body.get("output_config")
    if isinstance(metadata, dict) and metadata.get("user_id"):
        params["user"] = metadata["user_id"]
    if isinstance(effort, dict):
        if isinstance(effort.get("effort"), str):
            params["reasoning_effort"] = effort["effort"]
        form = effort.get("format")
        if isinstance(form, dict) and form.get("type") == "json_schema":
            schema = {"name": "answer", "schema": form.get("schema"), "strict": True}
            params["response_format"] = {"type": "json_schema", "json_schema": schema}
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        kinds: dict[str, JsonValue] = {"auto": "auto", "any": "required", "none": "none"}
        named = {"type": "function", "function": {"name": choice.get("name")}}
        params["tool_choice"] = kinds.get(str(choice.get("type")), named)
        if choice.get("disable_parallel_tool_use") is True:
            params["parallel_tool_calls"] = False
    return params


def _text_of(block: JsonValue) -> str:
    text = block.get("text") if isinstance(block, dict) else None
    if not isinstance(text, str):
        raise InvalidTask("a text block must hold text", param="messages")
    return text


def _make_tool_use(call: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    _, name, given = read_call(call)
    try:
        arguments = msgspec.json.decode(given) if given else {}
    except msgspec.DecodeError:
        arguments = {"_raw": given}
    return {"type": "tool_use", "id": call.get("id"), "name": name, "input": arguments}


def _event(kind: str, **fields: JsonValue) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **fields}))
