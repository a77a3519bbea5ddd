"""Chat completions towards clients. Workers often speak the same format, so that their answers pass unchanged."""

from collections.abc import Mapping

import msgspec

from ripieno.domain import Answer, JsonValue, Usage
from ripieno.domain.conversation import Media, MediaKind, Part, Reasoning, Refusal, ServerTool, Text, ToolCall
from ripieno.errors import InvalidTask
from ripieno.wires.base import (
    ONLY_WITH_TOOLS,
    Fault,
    ParsedRequest,
    ResponseSource,
    decode_fields,
    encode,
    list_tools,
    make_error_body,
    make_ripieno_field,
    require,
    require_model,
    require_sampling,
)
from ripieno.wires.chat.parts import WIRE, name_call, read_message
from ripieno.wires.pieces import CallPiece, Piece
from ripieno.wires.sse import pack_data
from ripieno.wires.usage import make_chat_usage

OWN_FIELDS = frozenset({"model", "messages", "tools", "stream", "stream_options", "ripieno"})
_NO_CHOICES = msgspec.Raw(b"[]")
_DONE = b"data: [DONE]\n\n"


class ChatDialect:
    """`POST /v1/chat/completions`."""

    name = WIRE
    comment = b": waiting\n\n"

    def read(self, body: Mapping[str, JsonValue]) -> ParsedRequest:
        """Read a request; every field that is not ours goes to the worker as it is."""
        model = require_model(body)
        require_sampling(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InvalidTask("messages must be a list, and must not be empty", param="messages")
        options, tools = require(body, "stream_options", dict, default={}), tuple(list_tools(body))
        left_out = OWN_FIELDS if tools else OWN_FIELDS.union(ONLY_WITH_TOOLS)
        return ParsedRequest(
            model=model,
            messages=tuple(read_message(message, index) for index, message in enumerate(messages)),
            tools=tools,
            params={name: value for name, value in body.items() if name not in left_out},
            is_stream=require(body, "stream", bool, default=False),
            wants_usage=options.get("include_usage") is True,
            body=body,
        )

    def write(self, parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> bytes:
        """Write a completion: the worker's own with the worker's id as model, or one made from the answer."""
        added: dict[str, JsonValue] = {"model": source.worker} | make_ripieno_field(source.provenance)
        if answer.native is not None and answer.native.wire == WIRE and isinstance(answer.native.raw, bytes):
            fields: dict[str, JsonValue] = {**decode_fields(answer.native.raw)}
            if fields.get("usage") in (None, msgspec.Raw(b"null")):
                added["usage"] = make_chat_usage(answer.usage)
            return encode(fields | added)
        choice = {
            "index": 0,
            "message": _make_message(answer),
            "finish_reason": answer.finish_reason,
            "logprobs": None,
        }
        return encode(
            {
                "id": f"chatcmpl-{source.decision}",
                "object": "chat.completion",
                "created": source.created,
                "choices": [choice],
                "usage": make_chat_usage(answer.usage),
            }
            | added
        )

    def stream(self, parsed: ParsedRequest, source: ResponseSource) -> "ChatStreamWriter":
        """Begin a stream of chunks."""
        return ChatStreamWriter(parsed, source)

    def refuse(self, fault: Fault) -> bytes:
        """Write OpenAI's error object."""
        return encode(make_error_body(fault))


class ChatStreamWriter:
    """Writes chunks. A worker's own chunks pass unchanged but for the model, which is the worker's id."""

    def __init__(self, parsed: ParsedRequest, source: ResponseSource) -> None:
        self._wants_usage = parsed.wants_usage
        self._name = msgspec.Raw(encode(source.worker))
        self._head: dict[str, JsonValue] = {
            "id": f"chatcmpl-{source.decision}",
            "object": "chat.completion.chunk",
            "created": source.created,
            "model": source.worker,
        }
        self._held: dict[str, JsonValue] | None = None
        """A chunk that may be the last one. It is sent with the provenance at the end of the stream."""
        self._has_begun = False
        self._usage: JsonValue = None
        """The latest counts: as received, or made here."""

    def add(self, piece: Piece) -> bytes:
        """Write one chunk."""
        native = piece.native
        if native is not None and native.wire == WIRE and isinstance(native.raw, dict):
            return self._pass_on(piece, native.raw)
        if piece.usage is not None:
            self._usage = make_chat_usage(piece.usage)
        chunks = self._release()
        if not self._has_begun and (piece.has_content or piece.finish_reason):
            chunks += self._send(self._make({"role": "assistant", "content": ""}, None), may_end=False)
            self._has_begun = True
        delta = _make_delta(piece)
        if delta or piece.finish_reason:
            made = self._make(delta, piece.finish_reason)
            chunks += self._send(made, may_end=piece.finish_reason is not None)
        return chunks

    def end(self, provenance: JsonValue = None) -> bytes:
        """Write the last chunk, with the usage if the client asked for it, and `[DONE]`."""
        before, last = b"", self._held
        self._held = None
        if self._wants_usage:
            before = _pack(last) if last is not None else b""
            last = {**self._head, "choices": [], "usage": self._usage or make_chat_usage(Usage())}
        if last is None and provenance is not None:
            last = self._make({}, None)
        return before + (_pack(last | make_ripieno_field(provenance)) if last is not None else b"") + _DONE

    def fail(self, fault: Fault) -> bytes:
        """Write an error event, and no `[DONE]`."""
        return self._release() + pack_data(encode(make_error_body(fault)))

    def _pass_on(self, piece: Piece, received: Mapping[str, JsonValue]) -> bytes:
        fields = {**received, "model": self._name}
        usage = fields.pop("usage", None)
        if piece.usage is not None:
            self._usage = usage
        self._head |= {name: fields[name] for name in ("id", "created") if name in fields}
        self._has_begun = True
        if piece.usage is not None and fields.get("choices", _NO_CHOICES) == _NO_CHOICES:
            return b""  # counts alone; they follow at the end, if the client asked for them
        return self._release() + self._send(fields, may_end=piece.finish_reason is not None)

    def _send(self, chunk: dict[str, JsonValue], *, may_end: bool) -> bytes:
        """Write a chunk, or hold it if it may be the last one. Text is never held."""
        if not may_end:
            return _pack(chunk)
        self._held = chunk
        return b""

    def _release(self) -> bytes:
        held, self._held = self._held, None
        return _pack(held) if held is not None else b""

    def _make(self, delta: Mapping[str, JsonValue], finish_reason: str | None) -> dict[str, JsonValue]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return {**self._head, "choices": [choice]}


def _pack(chunk: Mapping[str, JsonValue]) -> bytes:
    return pack_data(encode(chunk))


def _make_delta(piece: Piece) -> dict[str, JsonValue]:
    delta: dict[str, JsonValue] = {}
    if piece.text:
        delta["content"] = piece.text
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.refusal:
        delta["refusal"] = piece.refusal
    if piece.calls:
        delta["tool_calls"] = [_make_call_delta(call) for call in piece.calls]
    return delta | _make_extras(piece.parts)


def _make_call_delta(call: CallPiece) -> dict[str, JsonValue]:
    function: dict[str, JsonValue] = {"arguments": call.arguments}
    if call.name:
        function = {"name": f"{call.namespace}{call.name}"} | function
    made: dict[str, JsonValue] = {"index": call.index, "function": function}
    return made | ({"id": call.id, "type": "function"} if call.id else {})


def _make_message(answer: Answer) -> dict[str, JsonValue]:
    refusal = "".join(part.text for part in answer.parts if isinstance(part, Refusal))
    message: dict[str, JsonValue] = {
        "role": "assistant",
        "content": answer.text or None,
        "refusal": refusal or None,
        "annotations": _list_annotations(answer.parts),
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [_make_call(call) for call in answer.calls]
    return message | _make_extras(answer.parts)


def _make_call(call: ToolCall) -> dict[str, JsonValue]:
    function = {"name": name_call(call), "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _make_extras(parts: tuple[Part, ...]) -> dict[str, JsonValue]:
    """Write what chat completions have no common form for, where OpenRouter's clients look for it."""
    extras: dict[str, JsonValue] = {}
    images = [part for part in parts if isinstance(part, Media) and part.kind is MediaKind.IMAGE]
    if images:
        extras["images"] = [
            {"type": "image_url", "image_url": {"url": part.url or f"data:{part.media_type};base64,{part.data}"}}
            for part in images
        ]
    sealed = [part for part in parts if isinstance(part, Reasoning) and part.sealed]
    if sealed:
        extras["reasoning_details"] = [{"type": "reasoning.encrypted", "data": part.sealed} for part in sealed]
    served = [part for part in parts if isinstance(part, ServerTool)]
    if served:
        extras["server_tools"] = [{"type": part.kind, **part.raw} for part in served]
    return extras


def _list_annotations(parts: tuple[Part, ...]) -> list[JsonValue]:
    """List the citations of an answer that name a page."""
    found: list[JsonValue] = []
    offset = 0
    for part in parts:
        if isinstance(part, Text):
            for cited in part.citations:
                if cited.url:
                    start = offset + (cited.start or 0)
                    end = offset + (len(part.text) if cited.end is None else cited.end)
                    named = {"url": cited.url, "title": cited.title, "start_index": start, "end_index": end}
                    found.append({"type": "url_citation", "url_citation": named})
            offset += len(part.text)
    return found
