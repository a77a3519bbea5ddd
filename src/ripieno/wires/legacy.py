"""OpenAI's completions of a prompt, the form before chat completions, towards clients."""

from collections.abc import Mapping

from ripieno.domain import Answer, JsonValue, Message, Usage
from ripieno.errors import InvalidTask
from ripieno.wires.base import (
    Fault,
    ParsedRequest,
    ResponseSource,
    encode,
    make_error_body,
    make_ripieno_field,
    require,
    require_model,
    require_sampling,
)
from ripieno.wires.pieces import Piece
from ripieno.wires.sse import pack_data
from ripieno.wires.usage import make_chat_usage

_OWN_FIELDS = frozenset({"model", "prompt", "stream", "stream_options", "ripieno", "echo", "best_of", "logprobs"})


class CompletionsDialect:
    """`POST /v1/completions`. The prompt becomes a user's message."""

    name = "completions"
    comment = b": waiting\n\n"

    def read(self, body: Mapping[str, JsonValue]) -> ParsedRequest:
        """Read a request."""
        model = require_model(body)
        require_sampling(body)
        prompt = body.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str):
            raise InvalidTask("prompt must be one text", param="prompt", hint="send one request for each prompt")
        if body.get("suffix"):
            raise InvalidTask("suffix is not served here", param="suffix", hint="put the whole task into the prompt")
        options = require(body, "stream_options", dict, default={})
        return ParsedRequest(
            model=model,
            messages=(Message(role="user", content=prompt),),
            tools=(),
            params={name: value for name, value in body.items() if name not in _OWN_FIELDS and value is not None},
            is_stream=require(body, "stream", bool, default=False),
            wants_usage=options.get("include_usage") is True,
            body=body,
        )

    def write(self, parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> bytes:
        """Write a whole completion."""
        text = f"{parsed.messages[0].text}{answer.text}" if parsed.body.get("echo") is True else answer.text
        made = _make(source, [_make_choice(text, answer.finish_reason)]) | {"usage": make_chat_usage(answer.usage)}
        return encode(made | make_ripieno_field(source.provenance))

    def stream(self, parsed: ParsedRequest, source: ResponseSource) -> "CompletionsStreamWriter":
        """Begin a stream of chunks."""
        return CompletionsStreamWriter(parsed, source)

    def refuse(self, fault: Fault) -> bytes:
        """Write OpenAI's error object."""
        return encode(make_error_body(fault))


class CompletionsStreamWriter:
    """Writes chunks of text."""

    def __init__(self, parsed: ParsedRequest, source: ResponseSource) -> None:
        self._source = source
        self._wants_usage = parsed.wants_usage
        self._rest = parsed.messages[0].text if parsed.body.get("echo") is True else ""
        self._finish = "stop"
        self._usage = Usage()

    def add(self, piece: Piece) -> bytes:
        """Write one chunk."""
        self._usage = piece.usage or self._usage
        self._finish = piece.finish_reason or self._finish
        text, self._rest = self._rest + piece.text, ""
        return pack_data(encode(_make(self._source, [_make_choice(text, None)]))) if text else b""

    def end(self, provenance: JsonValue = None) -> bytes:
        """Write the last chunk, the usage if the client asked for it, and `[DONE]`."""
        last = _make(self._source, [_make_choice("", self._finish)]) | make_ripieno_field(provenance)
        counts = _make(self._source, []) | {"usage": make_chat_usage(self._usage)}
        chunks = [last, counts] if self._wants_usage else [last]
        return b"".join(pack_data(encode(chunk)) for chunk in chunks) + b"data: [DONE]\n\n"

    def fail(self, fault: Fault) -> bytes:
        """Write an error event, and no `[DONE]`."""
        return pack_data(encode(make_error_body(fault)))


def _make(source: ResponseSource, choices: list[JsonValue]) -> dict[str, JsonValue]:
    return {
        "id": f"cmpl-{source.decision}",
        "object": "text_completion",
        "created": source.created,
        "model": source.worker,
        "choices": choices,
    }


def _make_choice(text: str, finish_reason: str | None) -> dict[str, JsonValue]:
    return {"text": text, "index": 0, "finish_reason": finish_reason, "logprobs": None}
