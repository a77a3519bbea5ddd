"""The chat-completions form of providers: whole replies and server-sent events."""

import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from ripieno.domain import Answer, Usage, Worker
from ripieno.errors import BadAnswer
from ripieno.providers.base import Piece

LONGEST_EVENT = 4 * 1024 * 1024
LONGEST_ERROR = 300
LONGEST_CODE = 80
CARRIERS = ("tool_calls", "refusal", "audio", "function_call", "reasoning_content", "reasoning")
"""Message fields that make a message without text an answer."""

_decode = msgspec.json.Decoder().decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_BLANK = re.compile(rb"\r?\n\r?\n")
_DATA = re.compile(rb"(?m)^data: ?(.*?)\r?$")


class _StreamChoice(msgspec.Struct):
    delta: dict[str, object] | None = None
    finish_reason: str | None = None
    index: int = 0


_decode_choices = msgspec.json.Decoder(list[_StreamChoice]).decode


def read_completion(worker: Worker, content: bytes, *, is_sampled: bool = False) -> Answer:
    """Read a whole reply. If its choices are samples of one answer, return the most frequent.

    Raises:
        BadAnswer: the reply is not a chat completion, or is empty.
    """
    try:
        body = _decode(content)
        choices = body["choices"]
        index = vote([str(choice["message"].get("content") or "") for choice in choices]) if is_sampled else 0
        message = dict(choices[index]["message"])
        text = message.pop("content", None) or ""
        message.pop("role", None)
        finish = choices[index].get("finish_reason") or "stop"
    except (msgspec.MsgspecError, KeyError, TypeError, IndexError, AttributeError) as error:
        shown = content[:80].decode("utf-8", "replace")
        raise BadAnswer(f"{worker.id!r} did not answer with a chat completion: {shown!r}", worker=worker.id) from error
    if not isinstance(text, str):
        raise BadAnswer(f"{worker.id!r} answered content of type {type(text).__name__}", worker=worker.id)
    message = {name: value for name, value in message.items() if value is not None}
    if not text.strip() and not any(message.get(name) for name in CARRIERS):
        raise BadAnswer(f"{worker.id!r} answered with no content", worker=worker.id)
    return Answer(
        text=text,
        usage=read_usage(body.get("usage")),
        finish_reason=str(finish),
        message=message,
        wire=b"" if is_sampled else content,
    )


async def read_events(parts: AsyncIterator[bytes], *, worker: str) -> AsyncIterator[bytes]:
    """Split a body into the data of its server-sent events, up to `[DONE]`.

    Raises:
        BadAnswer: the body ends without `[DONE]`, or an event is too long.
    """
    rest = b""
    async for part in parts:
        rest = rest + part if rest else part
        if len(rest) > LONGEST_EVENT:
            raise BadAnswer(f"{worker!r} sent an event over {LONGEST_EVENT} bytes", worker=worker)
        *events, rest = rest.split(b"\n\n") if b"\r" not in rest else _BLANK.split(rest)
        for event in events:
            data = event[6:] if event.startswith(b"data: ") and b"\n" not in event else _join_data(event)
            if data == b"[DONE]":
                return
            if data:
                yield data
    raise BadAnswer(f"{worker!r} ended its stream without [DONE]", worker=worker)


def read_piece(worker: Worker, data: bytes) -> Piece:
    """Read one chunk of a stream.

    Raises:
        BadAnswer: the data is not a chunk, or reports an error.
    """
    try:
        fields = _decode_fields(data)
        if "error" in fields and bytes(fields["error"]) != b"null":
            raise BadAnswer(f"{worker.id!r} ended its stream with an error: {read_error(data)}", worker=worker.id)
        choices = _decode_choices(fields["choices"])
        raw_usage = fields.get("usage")
        usage = None if raw_usage is None or bytes(raw_usage) == b"null" else read_usage(_decode(raw_usage))
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise BadAnswer(f"{worker.id!r} sent an event that is not a completion chunk", worker=worker.id) from error
    first = next((choice for choice in choices if choice.index == 0), None)
    if first is None:
        return Piece(usage=usage, chunk=fields)
    return Piece(delta=first.delta or {}, finish_reason=first.finish_reason, usage=usage, chunk=fields)


def read_usage(usage: object) -> Usage:
    """Read token counts, and the price if the provider states one. An invalid count is unknown."""
    if not isinstance(usage, Mapping):
        return Usage()
    read, written = _fields(usage, "prompt_tokens_details"), _fields(usage, "completion_tokens_details")
    reasoning = _count(written.get("reasoning_tokens"))
    return Usage(
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count_output(usage, reasoning),
        cached_tokens=_first(read.get("cached_tokens"), usage.get("prompt_cache_hit_tokens")),
        reasoning_tokens=reasoning,
        cache_write_tokens=_first(read.get("cache_write_tokens"), usage.get("cache_creation_input_tokens")),
        audio_input_tokens=_count(read.get("audio_tokens")),
        audio_output_tokens=_count(written.get("audio_tokens")),
        cost_usd=_read_cost(usage),
    )


def _count_output(usage: Mapping[str, object], reasoning: int | None) -> int | None:
    """Count output tokens including reasoning tokens, which some providers count only in the total."""
    asked, said = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    total = _count(usage.get("total_tokens"))
    if asked is None or said is None or total is None:
        return said
    hidden = total - asked - said
    return said + hidden if hidden > 0 and reasoning in (None, 0, hidden) else said


def _read_cost(usage: Mapping[str, object]) -> float | None:
    """Read the price that the provider states, in US dollars: a number from OpenRouter, a table from Perplexity."""
    cost = usage.get("cost")
    stated = _amount(cost.get("total_cost") if isinstance(cost, Mapping) else cost)
    if stated is None or not usage.get("is_byok"):
        return stated
    upstream = _amount(_fields(usage, "cost_details").get("upstream_inference_cost"))
    return None if upstream is None else stated + upstream


def _fields(usage: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = usage.get(name)
    return found if isinstance(found, Mapping) else {}


def _first(*values: object) -> int | None:
    counts = [count for count in map(_count, values) if count is not None]
    return counts[0] if counts else None


def _amount(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0.0 <= float(value) < math.inf else None


def read_error(content: bytes) -> str:
    """Return the message of an error body in one short line."""
    try:
        said = _decode(content)["error"]
        text = said["message"] if isinstance(said, Mapping) else said
    except (msgspec.MsgspecError, KeyError, TypeError):
        text = content.decode("utf-8", "replace")
    return " ".join(str(text).split())[:LONGEST_ERROR] or "nothing"


def read_code(content: bytes) -> str | None:
    """Return the code of an error body, if it has one."""
    try:
        code = _decode(content)["error"]["code"]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return None
    return code if isinstance(code, str) and len(code) <= LONGEST_CODE else None


def vote(texts: Sequence[str]) -> int:
    """Return the index of the most frequent answer, ignoring case and outer punctuation; the first on ties."""
    keys = [re.sub(r"\W+", " ", text).strip().lower() for text in texts]
    counts = Counter(key for key in keys if key)
    if not counts:
        return 0
    return keys.index(counts.most_common(1)[0][0])


def _join_data(event: bytes) -> bytes:
    return b"\n".join(_DATA.findall(event)).strip()


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
