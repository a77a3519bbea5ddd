"""OpenAI's chat completions: what workers speak too, so that what they say passes as it is."""

from collections.abc import Mapping

import msgspec

from ripieno.domain import Answer, JsonValue, Message, Usage
from ripieno.errors import InvalidTask, RipienoError
from ripieno.gateway.dialects.base import (
    Asked,
    Origin,
    encode,
    list_tools,
    require,
    require_model,
    require_sampling,
    say,
)
from ripieno.gateway.errors import make_body
from ripieno.providers import Piece

OWN_FIELDS = frozenset({"model", "messages", "tools", "stream", "stream_options", "ripieno"})

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ChatDialect:
    """`POST /v1/chat/completions`."""

    name = "chat"
    comment = b": waiting\n\n"

    def read(self, body: Mapping[str, JsonValue]) -> Asked:
        """Read a request; every field that is not ours goes to the worker as it is."""
        model = require_model(body)
        require_sampling(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InvalidTask("messages must be a list, and must not be empty", param="messages")
        options = require(body, "stream_options", dict, default={})
        assert isinstance(options, dict)
        return Asked(
            model=model,
            messages=tuple(_read_message(message, index) for index, message in enumerate(messages)),
            tools=tuple(list_tools(body)),
            params={name: value for name, value in body.items() if name not in OWN_FIELDS},
            is_stream=require(body, "stream", bool, default=False) is True,
            wants_usage=options.get("include_usage") is True,
            body=body,
        )

    def write(self, asked: Asked, answer: Answer, origin: Origin) -> bytes:
        """A completion: the worker's own, under the worker's name here, or one made of the answer."""
        if answer.wire:
            return encode(_decode_fields(answer.wire) | {"model": origin.worker} | say(origin.told))
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
                "id": f"chatcmpl-{origin.decision}",
                "object": "chat.completion",
                "created": origin.created,
                "model": origin.worker,
                "choices": [choice],
                "usage": make_usage(answer.usage),
            }
            | say(origin.told)
        )

    def stream(self, asked: Asked, origin: Origin) -> "ChatWriting":
        """Begin a stream of chunks."""
        return ChatWriting(asked, origin)

    def refuse(self, error: RipienoError, *, request: str) -> bytes:
        """OpenAI's error object."""
        return encode(make_body(error, request=request))


class ChatWriting:
    """Chunks: a worker's own pass as they are, under the worker's name here."""

    def __init__(self, asked: Asked, origin: Origin) -> None:
        self._wants_usage = asked.wants_usage
        self._request = origin.request
        self._name = msgspec.Raw(encode(origin.worker))
        self._head: dict[str, JsonValue] = {
            "id": f"chatcmpl-{origin.decision}",
            "object": "chat.completion.chunk",
            "created": origin.created,
            "model": origin.worker,
        }
        self._held: dict[str, JsonValue] | None = None
        """A chunk that may be the last one: it waits for what the end has to say."""
        self._has_begun = False
        self._has_own_usage = False
        self._usage: Usage | None = None

    def begin(self) -> bytes:
        """Nothing: the role stands in the first chunk."""
        return b""

    def add(self, piece: Piece) -> bytes:
        """One chunk."""
        if piece.usage is not None:
            self._usage = piece.usage
        if piece.chunk is not None:
            return self._pass_on(piece)
        chunks = self._release()
        if not self._has_begun and "role" not in piece.delta:
            chunks += self._give(self._make({"role": "assistant", "content": ""}, None), may_end=False)
        self._has_begun = True
        if piece.delta or piece.finish_reason:
            made = self._make(piece.delta, piece.finish_reason)
            chunks += self._give(made, may_end=piece.finish_reason is not None)
        return chunks

    def end(self, told: JsonValue = None) -> bytes:
        """The last chunk, with the usage where it was asked for, and `[DONE]`."""
        before, last = b"", self._held
        self._held = None
        if self._wants_usage and not self._has_own_usage:
            before = _pack(last) if last is not None else b""
            last = {**self._head, "choices": [], "usage": make_usage(self._usage or Usage())}
        if last is None and told is not None:
            last = self._make({}, None)
        return before + (_pack(last | say(told)) if last is not None else b"") + b"data: [DONE]\n\n"

    def fail(self, error: RipienoError) -> bytes:
        """An error event, and no `[DONE]`."""
        return self._release() + b"data: %b\n\n" % encode(make_body(error, request=self._request))

    def _pass_on(self, piece: Piece) -> bytes:
        fields = piece.chunk
        assert fields is not None
        if piece.usage is not None and not piece.delta and piece.finish_reason is None:
            if not self._wants_usage:  # asked for by us alone, to count
                return b""
            self._has_own_usage = True
        may_end = piece.finish_reason is not None or self._has_own_usage
        return self._release() + self._give({**fields, "model": self._name}, may_end=may_end)

    def _give(self, chunk: dict[str, JsonValue], *, may_end: bool) -> bytes:
        """One chunk, unless it may be the last: the words of an answer never wait."""
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
    """Token counts in the wire's names."""
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
