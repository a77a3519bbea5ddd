"""Chat completions towards workers: requests out, replies in, whole or as a stream."""

import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from ripieno.domain import Answer, JsonValue, Task
from ripieno.domain.conversation import Native, Part, Reasoning, Refusal, Text, ToolCall
from ripieno.errors import BadAnswer
from ripieno.wires.base import ONLY_WITH_TOOLS, Recipient, encode, fields_of, items_of, text_of
from ripieno.wires.chat.parts import WIRE, read_arguments, read_parts, read_reasoning, write_messages
from ripieno.wires.decoding import decode_object, read_error
from ripieno.wires.pieces import CallPiece, Piece
from ripieno.wires.usage import has_sound_counts, read_chat_usage

_decode = msgspec.json.Decoder().decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL = b"null"
ENDS_WITH_CALLS = "tool_calls"


class _StreamChoice(msgspec.Struct):
    delta: dict[str, object] | None = None
    finish_reason: str | None = None
    index: int | None = None
    error: object = None


_decode_choices = msgspec.json.Decoder(list[_StreamChoice]).decode


class ChatUpstream:
    """`POST /chat/completions` of any compatible server."""

    name = WIRE

    def path(self, recipient: Recipient, *, is_stream: bool) -> str:
        """Return the path of a request."""
        return "/chat/completions"

    def write(self, task: Task, recipient: Recipient, *, is_stream: bool) -> dict[str, JsonValue]:
        """Write the body of a request."""
        body: dict[str, JsonValue] = {
            **task.params,
            "model": recipient.model,
            "messages": write_messages(task.messages, recipient),
        }
        if task.tools:
            body["tools"] = list(task.tools)
        else:
            for name in ONLY_WITH_TOOLS:
                body.pop(name, None)
        if is_stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def read(self, content: bytes, *, worker: str, is_sampled: bool = False) -> Answer:
        """Read a whole reply. If its choices are samples of one answer, return the most frequent."""
        decoded = decode_object(content, worker=worker, what="a chat completion")
        body = decoded.fields
        if body.get("error") and not body.get("choices"):
            raise BadAnswer(f"{worker!r} answered with an error: {read_error(content)}", worker=worker)
        choices = [choice for choice in items_of(body.get("choices")) if isinstance(choice.get("message"), dict)]
        if not choices:
            shown = content[:80].decode("utf-8", "replace")
            raise BadAnswer(f"{worker!r} did not answer with a chat completion: {shown!r}", worker=worker)
        texts = [text_of(fields_of(choice["message"]).get("content")) for choice in choices]
        choice = choices[vote(texts) if is_sampled else 0]
        message, finish = fields_of(choice["message"]), text_of(choice.get("finish_reason")) or "stop"
        if finish == "error" or choice.get("error"):
            said = text_of(fields_of(choice.get("error")).get("message")) or "without a reason"
            raise BadAnswer(f"{worker!r} ended its answer with an error: {said}", worker=worker)
        if not isinstance(content_of := message.get("content"), str | list | None):
            raise BadAnswer(f"{worker!r} answered content of type {type(content_of).__name__}", worker=worker)
        parts, has_own_ids = _name_calls(read_parts(message), message)
        if not _has_content(parts) and not message.get("audio") and finish not in ("length", "content_filter"):
            raise BadAnswer(f"{worker!r} answered with no content", worker=worker)
        ends = ENDS_WITH_CALLS if finish == "stop" and message.get("tool_calls") else finish
        usage = read_chat_usage(body.get("usage"))
        is_exact = decoded.is_exact and has_own_ids and ends == finish and _is_plain(message) and not is_sampled
        is_exact = is_exact and (not body.get("usage") or has_sound_counts(body["usage"]))
        return Answer.of(parts, usage=usage, finish_reason=ends, native=_keep(body, content) if is_exact else None)

    def stream(self, *, worker: str) -> "ChatReader":
        """Begin to read a streamed reply."""
        return ChatReader(worker)


class ChatReader:
    """Reads the chunks of one reply. A chunk with a fault is repaired, and then has no received form."""

    def __init__(self, worker: str) -> None:
        self.is_over = self.is_finished = False
        self._worker = worker
        self._calls: list[str] = []
        """Ids of the calls so far, by place."""
        self._places: dict[int, int] = {}
        """Places of the calls by the numbers that the server gives them."""

    def read(self, event: str, data: bytes) -> Sequence[Piece]:
        """Read one chunk."""
        if data == b"[DONE]":
            self.is_over = self.is_finished = True
            return ()
        if not data.startswith(b"{") and not data.lstrip().startswith((b"{", b":")):
            raise BadAnswer(f"{self._worker!r} sent an event that is not a completion chunk", worker=self._worker)
        if b"\n" in data:  # over several lines: it cannot pass as it is, because an event to a client has one
            return self._read_repaired(data)
        try:
            fields = _decode_fields(data)
            choices = _decode_choices(fields["choices"]) if "choices" in fields else []
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return self._read_repaired(data)
        if "error" in fields and bytes(fields["error"]) != _NULL:
            self._refuse(data)
        first = next((choice for choice in choices if not choice.index), None)
        raw_usage = fields.get("usage")
        counts = None if raw_usage is None else _decode(raw_usage)
        usage = None if counts is None else read_chat_usage(counts)
        if first is None and choices:  # of a further choice, which only clients of this format can get
            return (Piece(usage=usage, native=Native(WIRE, fields)),)
        if first is None:
            is_sound = has_sound_counts(counts)
            return (Piece(usage=usage, native=Native(WIRE, fields) if is_sound else None),) if usage is not None else ()
        piece = self._read_choice(first.delta or {}, first.finish_reason, first.error, is_exact=first.index is not None)
        native = Native(WIRE, fields) if piece.native is not None else None
        if counts is not None and not has_sound_counts(counts):
            native = None
        return (replace(piece, usage=usage, native=native),)

    def _read_repaired(self, data: bytes) -> Sequence[Piece]:
        body = decode_object(data, worker=self._worker, what="a completion chunk").fields
        if body.get("error"):
            self._refuse(data)
        usage = read_chat_usage(body["usage"]) if body.get("usage") else None
        first = next((choice for choice in items_of(body.get("choices")) if not choice.get("index")), None)
        if first is None:
            return (Piece(usage=usage),) if usage is not None else ()
        finish = text_of(first.get("finish_reason")) or None
        piece = self._read_choice(fields_of(first.get("delta")), finish, first.get("error"), is_exact=False)
        return (replace(piece, usage=usage, native=None),)

    def _refuse(self, data: bytes) -> None:
        raise BadAnswer(f"{self._worker!r} ended its stream with an error: {read_error(data)}", worker=self._worker)

    def _read_choice(
        self, delta: Mapping[str, JsonValue], finish: str | None, error: JsonValue, *, is_exact: bool
    ) -> Piece:
        """Read one choice. The piece has a received form only if nothing was repaired."""
        if finish == "error" or error:
            said = text_of(fields_of(error).get("message")) or "without a reason"
            raise BadAnswer(f"{self._worker!r} ended its stream with an error: {said}", worker=self._worker)
        content, parts = delta.get("content"), list[Part]()
        text, reasoning = text_of(content), read_reasoning(delta) or ""
        if isinstance(content, list):
            parts, is_exact = read_parts({"content": content}), False
            text = "".join(part.text for part in parts if isinstance(part, Text))
            reasoning += "".join(part.text for part in parts if isinstance(part, Reasoning))
        calls, has_own_places = self._read_calls(items_of(delta.get("tool_calls")))
        if finish == "stop" and self._calls:
            finish, is_exact = ENDS_WITH_CALLS, False
        if finish is not None:
            self.is_over = True
        return Piece(
            text=text,
            reasoning=reasoning,
            refusal=text_of(delta.get("refusal")),
            calls=calls,
            parts=tuple(part for part in parts if not isinstance(part, Text | Reasoning | Refusal | ToolCall)),
            finish_reason=finish,
            native=Native(WIRE, None) if is_exact and has_own_places else None,
        )

    def _read_calls(self, given: Sequence[Mapping[str, JsonValue]]) -> tuple[tuple[CallPiece, ...], bool]:
        """Read the parts of tool calls, each with its place; and whether all was as it should be."""
        pieces, is_exact = [], True
        for part in given:
            function, name_of_part = fields_of(part.get("function")), text_of(part.get("id"))
            name, arguments = text_of(function.get("name")), function.get("arguments")
            stated = part.get("index")
            place = self._place(stated, name_of_part, name)
            is_new = place == len(self._calls)
            if is_new:
                self._calls.append(name_of_part or f"call_{secrets.token_hex(8)}")
            is_text = arguments is None or isinstance(arguments, str)
            is_exact = is_exact and stated == place and is_text and bool(name_of_part or not is_new)
            pieces.append(
                CallPiece(
                    index=place,
                    id=self._calls[place] if is_new else "",
                    name=name,
                    arguments=read_arguments(arguments),
                )
            )
        return tuple(pieces), is_exact

    def _place(self, stated: JsonValue, name_of_part: str, name: str) -> int:
        """Find the place of the call that a part belongs to; the next one for a new call.

        Some servers number no call, or all of them 0: then a new id, or without ids a name, begins a call.
        """
        count = len(self._calls)
        if name_of_part and name_of_part in self._calls:
            return self._calls.index(name_of_part)
        if isinstance(stated, int) and not isinstance(stated, bool):
            known = self._places.get(stated)
            if known is not None and not name_of_part:
                return known
            self._places[stated] = count
            return count
        return count if name_of_part or name or not count else count - 1


def _name_calls(parts: Sequence[Part], message: Mapping[str, JsonValue]) -> tuple[tuple[Part, ...], bool]:
    """Give each tool call without an id one of its own; and return whether all had one."""
    given = [text_of(call.get("id")) for call in items_of(message.get("tool_calls"))]
    if all(given) and len(set(given)) == len(given):
        return tuple(parts), True
    named = [
        msgspec.structs.replace(part, id=f"call_{secrets.token_hex(8)}") if isinstance(part, ToolCall) else part
        for part in parts
    ]
    return tuple(named), False


def _keep(body: Mapping[str, JsonValue], content: bytes) -> Native:
    """Return a reply as received, with the fields that clients require and many servers leave out."""
    choices = items_of(body.get("choices"))
    if all("refusal" in fields_of(choice.get("message")) for choice in choices):
        return Native(WIRE, content)
    whole = [
        {"logprobs": None, **choice, "message": {**_OF_MESSAGES, **fields_of(choice["message"])}} for choice in choices
    ]
    return Native(WIRE, encode({**body, "choices": whole}))


_OF_MESSAGES: Mapping[str, JsonValue] = {"refusal": None, "annotations": []}


def _has_content(parts: Sequence[Part]) -> bool:
    return any(not isinstance(part, Text) or part.text.strip() for part in parts)


def _is_plain(message: Mapping[str, JsonValue]) -> bool:
    """Return whether a message needs no repair: its content is text, and its calls' arguments are text."""
    content = message.get("content")
    calls = (fields_of(call.get("function")).get("arguments") for call in items_of(message.get("tool_calls")))
    return (content is None or isinstance(content, str)) and all(isinstance(each, str) for each in calls)


def vote(texts: Sequence[str]) -> int:
    """Return the index of the most frequent answer, ignoring case and outer punctuation; the first on ties."""
    keys = [re.sub(r"\W+", " ", text).strip().lower() for text in texts]
    counts = Counter(key for key in keys if key)
    if not counts:
        return 0
    return keys.index(counts.most_common(1)[0][0])
