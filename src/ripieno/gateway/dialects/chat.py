"""OpenAI's chat completions. Workers speak the same format, so that their answers pass unchanged."""

from collections.abc import Mapping

import msgspec

from ripieno.domain import Answer, JsonValue, Message, Usage
from ripieno.errors import InvalidTask, RipienoError
from ripieno.gateway.dialects.base import (
    ParsedRequest,
    ResponseSource,
    decode_fields,
    encode,
    list_tools,
    make_ripieno_field,
    require,
    require_model,
    require_sampling,
)
from ripieno.gateway.errors import make_body
from ripieno.providers import Piece

OWN_FIELDS = frozenset({"model", "messages", "tools", "stream", "stream_options", "ripieno"})


class ChatDialect:
    """`POST /v1/chat/completions`."""

    name = "chat"
    comment = b": waiting\n\n"

    def read(self, body: Mapping[str, JsonValue]) -> ParsedRequest:
        """Read a request; every field that is not ours goes to the worker as it is."""
        model = require_model(body)
        require_sampling(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InvalidTask("messages must be a list, and must not be empty", param="messages")
        options = require(body, "stream_options", dict, default={})
        return ParsedRequest(
            model=model,
            messages=tuple(_read_message(message, index) for index, message in enumerate(messages)),
            tools=tuple(list_tools(body)),
            params={name: value for name, value in body.items() if name not in OWN_FIELDS},
            is_stream=require(body, "stream", bool, default=False),
            wants_usage=options.get("include_usage") is True,
            body=body,
        )

    def write(self, parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> bytes:
        """Write a completion: the worker's own with the worker's id as model, or one made from the answer."""
        if answer.wire:
            return encode(decode_fields(answer.wire) | {"model": source.worker} | make_ripieno_field(source.provenance))
        message: dict[str, JsonValue] = {
            "role": "assistant",
            "content": answer.text or None,
            "refusal": None,
            "annotations": [],
        }
        choice = {
            "index": 0,
            "message": {**message, **answer.message},
            "finish_reason": answer.finish_reason,
            "logprobs": None,
        }
        return encode(
            {
                "id": f"chatcmpl-{source.decision}",
                "object": "chat.completion",
                "created": source.created,
                "model": source.worker,
                "choices": [choice],
                "usage": make_usage(answer.usage),
            }
            | make_ripieno_field(source.provenance)
        )

    def stream(self, parsed: ParsedRequest, source: ResponseSource) -> "ChatStreamWriter":
        """Begin a stream of chunks."""
        return ChatStreamWriter(parsed, source)

    def refuse(self, error: RipienoError, *, request: str) -> bytes:
        """Write OpenAI's error object."""
        return encode(make_body(error, request=request))


class ChatStreamWriter:
    """Writes chunks. A worker's own chunks pass unchanged but for the model, which is the worker's id."""

    def __init__(self, parsed: ParsedRequest, source: ResponseSource) -> None:
        self._wants_usage = parsed.wants_usage
        self._request = source.request
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
        self._has_own_usage = False
        self._usage: Usage | None = None

    def begin(self) -> bytes:
        """Write nothing: the first chunk holds the role."""
        return b""

    def add(self, piece: Piece) -> bytes:
        """Write one chunk."""
        if piece.usage is not None:
            self._usage = piece.usage
        if piece.chunk is not None:
            return self._pass_on(piece)
        chunks = self._release()
        if not self._has_begun and "role" not in piece.delta:
            chunks += self._send(self._make({"role": "assistant", "content": ""}, None), may_end=False)
        self._has_begun = True
        if piece.delta or piece.finish_reason:
            made = self._make(piece.delta, piece.finish_reason)
            chunks += self._send(made, may_end=piece.finish_reason is not None)
        return chunks

    def end(self, provenance: JsonValue = None) -> bytes:
        """Write the last chunk, with the usage if the client asked for it, and `[DONE]`."""
        before, last = b"", self._held
        self._held = None
        if self._wants_usage and not self._has_own_usage:
            before = _pack(last) if last is not None else b""
            last = {**self._head, "choices": [], "usage": make_usage(self._usage or Usage())}
        if last is None and provenance is not None:
            last = self._make({}, None)
        return (
            before + (_pack(last | make_ripieno_field(provenance)) if last is not None else b"") + b"data: [DONE]\n\n"
        )

    def fail(self, error: RipienoError) -> bytes:
        """Write an error event, and no `[DONE]`."""
        return self._release() + b"data: %b\n\n" % encode(make_body(error, request=self._request))

    def _pass_on(self, piece: Piece) -> bytes:
        fields = piece.chunk
        assert fields is not None
        if piece.usage is not None and not piece.delta and piece.finish_reason is None:
            if not self._wants_usage:  # only the gateway asked for it, to count
                return b""
            self._has_own_usage = True
        may_end = piece.finish_reason is not None or self._has_own_usage
        return self._release() + self._send({**fields, "model": self._name}, may_end=may_end)

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
    return b"data: %b\n\n" % encode(chunk)


def make_usage(usage: Usage) -> dict[str, JsonValue]:
    """Make the token counts in the names of chat completions."""
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    counts: dict[str, JsonValue] = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }
    if usage.cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts


def _read_message(raw: JsonValue, index: int) -> Message:
    place = f"messages[{index}]"
    if not isinstance(raw, dict):
        raise InvalidTask(f"{place} must be an object", param=place)
    role, content = raw.get("role"), raw.get("content")
    if not isinstance(role, str):
        raise InvalidTask(f"{place}.role must be text", param=f"{place}.role")
    if content is not None and not isinstance(content, str | list):
        raise InvalidTask(f"{place}.content must be text, a list of parts, or null", param=f"{place}.content")
    if len(raw) <= 2:
        return Message(role=role, content=content)
    extra = {name: value for name, value in raw.items() if name not in ("role", "content")}
    return Message(role=role, content=content, extra=extra)
