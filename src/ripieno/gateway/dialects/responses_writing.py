"""OpenAI's responses: answers as items, whole or as a stream of typed events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ripieno.domain import Answer, JsonValue, Usage
from ripieno.errors import RipienoError
from ripieno.gateway.dialects.base import (
    ParsedRequest,
    ResponseSource,
    encode,
    find_calls,
    find_reasoning,
    make_ripieno_field,
    read_call,
)
from ripieno.gateway.errors import find_wire, format_message
from ripieno.providers import Piece


def write_response(parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> dict[str, JsonValue]:
    """Make the response object of a whole answer."""
    items: list[JsonValue] = []
    thinking = find_reasoning(answer.message)
    if thinking:
        items.append(_make_reasoning(source, len(items), thinking))
    if answer.text:
        items.append(_make_message(source, len(items), answer.text))
    for whole in find_calls(answer.message):
        call = _Call()
        call.add(whole)
        items.append(_make_call(source, len(items), call, _custom_names(parsed)))
    return make_response(parsed, source, items, answer.usage, finish=answer.finish_reason) | make_ripieno_field(
        source.provenance
    )


class ResponsesStreamWriter:
    """Writes typed, numbered events: each item is added, filled and done before the next one."""

    def __init__(self, parsed: ParsedRequest, source: ResponseSource) -> None:
        self._parsed = parsed
        self._source = source
        self._custom = _custom_names(parsed)
        self._number = -1
        self._done: list[dict[str, JsonValue]] = []
        self._open: tuple[str, int] | None = None
        self._text = ""
        self._call = _Call()
        self._finish = "stop"
        self._usage = Usage()

    def begin(self) -> bytes:
        """Write the empty response."""
        shell = make_response(self._parsed, self._source, [], None, finish=None)
        return self._event("response.created", response=shell) + self._event("response.in_progress", response=shell)

    def add(self, piece: Piece) -> bytes:
        """Write the events of one piece."""
        if piece.usage is not None:
            self._usage = piece.usage
        if piece.finish_reason:
            self._finish = piece.finish_reason
        if not piece.delta:
            return b""
        events = []
        thinking = find_reasoning(piece.delta)
        if thinking:
            events += [self._turn_to("reasoning", 0), self._fill("response.reasoning_text.delta", thinking)]
            self._text += thinking
        if piece.text:
            events += [self._turn_to("message", 0), self._fill("response.output_text.delta", piece.text)]
            self._text += piece.text
        events += [self._add_call(part) for part in find_calls(piece.delta)]
        return b"".join(events)

    def end(self, provenance: JsonValue = None) -> bytes:
        """Close the last item and the response."""
        events = self._close()
        response = make_response(self._parsed, self._source, self._done, self._usage, finish=self._finish)
        response |= make_ripieno_field(provenance)
        return events + self._event(f"response.{response['status']}", response=response)

    def fail(self, error: RipienoError) -> bytes:
        """Write the response as failed, with its error."""
        response = make_response(self._parsed, self._source, self._done, self._usage, finish=None)
        code = "rate_limit_exceeded" if find_wire(error).status == 429 else "server_error"
        failed = response | {"status": "failed", "error": {"code": code, "message": format_message(error)}}
        return self._event("response.failed", response=failed, request_id=self._source.request)

    def _add_call(self, part: Mapping[str, JsonValue]) -> bytes:
        place = read_call(part)[0]
        events = b""
        if self._open == ("call", place):
            more = self._call.add(part)
        else:
            events = self._close()
            self._call = _Call()
            more = self._call.add(part)
            events += self._add_item("call", place)
        # The input of a custom tool is sent whole, after the JSON around it is removed.
        if not more or self._call.name in self._custom:
            return events
        return events + self._event(
            "response.function_call_arguments.delta",
            item_id=_name_item("fc", self._source, len(self._done)),
            output_index=len(self._done),
            delta=more,
        )

    def _turn_to(self, kind: str, place: int) -> bytes:
        if self._open == (kind, place):
            return b""
        return self._close() + self._add_item(kind, place)

    def _add_item(self, kind: str, place: int) -> bytes:
        self._open, self._text = (kind, place), ""
        item = self._item() | {"status": "in_progress"}
        if kind == "call":
            item |= {"input" if item["type"] == "custom_tool_call" else "arguments": ""}
        else:
            item |= {"content": []}
        events = self._event("response.output_item.added", output_index=len(self._done), item=item)
        if kind == "message":
            events += self._event("response.content_part.added", **self._place(), part=_make_part(""))
        return events

    def _fill(self, kind: str, delta: str) -> bytes:
        extra: dict[str, JsonValue] = {"logprobs": []} if kind == "response.output_text.delta" else {}
        return self._event(kind, **self._place(), delta=delta, **extra)

    def _close(self) -> bytes:
        """Write that the open item is done."""
        if self._open is None:
            return b""
        kind, item, events = self._open[0], self._item(), b""
        match kind:
            case "message":
                part = _make_part(self._text)
                events += self._event("response.output_text.done", **self._place(), text=self._text, logprobs=[])
                events += self._event("response.content_part.done", **self._place(), part=part)
            case "reasoning":
                events += self._event("response.reasoning_text.done", **self._place(), text=self._text)
            case _:
                events += self._close_call(item)
        events += self._event("response.output_item.done", output_index=len(self._done), item=item)
        self._done.append(item)
        self._open = None
        return events

    def _close_call(self, item: Mapping[str, JsonValue]) -> bytes:
        place: dict[str, JsonValue] = {"item_id": item["id"], "output_index": len(self._done)}
        if item["type"] == "custom_tool_call":
            delta = self._event("response.custom_tool_call_input.delta", **place, delta=item["input"])
            return delta + self._event("response.custom_tool_call_input.done", **place, input=item["input"])
        return self._event(
            "response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"]
        )

    def _item(self) -> dict[str, JsonValue]:
        assert self._open is not None
        match self._open[0]:
            case "message":
                return _make_message(self._source, len(self._done), self._text)
            case "reasoning":
                return _make_reasoning(self._source, len(self._done), self._text)
            case _:
                return _make_call(self._source, len(self._done), self._call, self._custom)

    def _place(self) -> dict[str, JsonValue]:
        assert self._open is not None
        prefix, index = "msg" if self._open[0] == "message" else "rs", len(self._done)
        return {"item_id": _name_item(prefix, self._source, index), "output_index": index, "content_index": 0}

    def _event(self, kind: str, **fields: JsonValue) -> bytes:
        self._number += 1
        data = encode({"type": kind, "sequence_number": self._number, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def make_response(
    parsed: ParsedRequest,
    source: ResponseSource,
    items: Sequence[JsonValue],
    usage: Usage | None,
    *,
    finish: str | None,
) -> dict[str, JsonValue]:
    """Make the response object, with all keys that clients read.

    Args:
        parsed: the request; the response repeats its settings.
        source: where the response comes from.
        items: the output so far.
        usage: token counts, once they are known.
        finish: why the worker stopped; None while it runs.
    """
    is_cut = finish in ("length", "content_filter")
    status = "in_progress" if finish is None else "incomplete" if is_cut else "completed"
    reason = "max_output_tokens" if finish == "length" else "content_filter"
    given = {name: value for name in _SETTINGS if (value := parsed.body.get(name)) is not None}
    return {
        **_SETTINGS,
        **given,
        "id": f"resp_{source.decision}",
        "object": "response",
        "created_at": source.created,
        "completed_at": source.created if status == "completed" else None,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if is_cut else None,
        "model": source.worker,
        "output": list(items),
        "previous_response_id": None,
        "store": False,
        "usage": None if usage is None or finish is None else make_usage(usage),
    }


_SETTINGS: Mapping[str, JsonValue] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Settings of a request that its response repeats, with their defaults."""


def make_usage(usage: Usage) -> dict[str, JsonValue]:
    """Make the token counts in the names of responses."""
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": read + written,
    }


@dataclass(slots=True)
class _Call:
    """A tool call, of which parts arrive."""

    id: str = ""
    name: str = ""
    arguments: str = ""

    def add(self, part: Mapping[str, JsonValue]) -> str:
        """Add one part; return what it adds to the arguments."""
        _, name, more = read_call(part)
        self.id = str(part.get("id") or self.id)
        self.name += name
        self.arguments += more
        return more


def _custom_names(parsed: ParsedRequest) -> frozenset[str]:
    tools = parsed.body.get("tools")
    found = tools if isinstance(tools, list) else []
    return frozenset(str(t.get("name")) for t in found if isinstance(t, dict) and t.get("type") == "custom")


def _name_item(prefix: str, source: ResponseSource, index: int) -> str:
    return f"{prefix}_{source.decision}_{index}"


def _make_part(text: str) -> dict[str, JsonValue]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _make_message(source: ResponseSource, index: int, text: str) -> dict[str, JsonValue]:
    return {
        "id": _name_item("msg", source, index),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [_make_part(text)],
    }


def _make_reasoning(source: ResponseSource, index: int, text: str) -> dict[str, JsonValue]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"id": _name_item("rs", source, index), "type": "reasoning", "summary": [], "content": content}


def _make_call(source: ResponseSource, index: int, call: _Call, custom: frozenset[str]) -> dict[str, JsonValue]:
    item: dict[str, JsonValue] = {
        "id": _name_item("fc", source, index),
        "type": "function_call",
        "status": "completed",
        "call_id": call.id or _name_item("call", source, index),
        "name": call.name,
        "arguments": call.arguments,
    }
    if call.name in custom:
        return {n: v for n, v in item.items() if n != "arguments"} | {
            "type": "custom_tool_call",
            "input": _unwrap_input(call.arguments),
        }
    return item


def _unwrap_input(arguments: str) -> str:
    try:
        return str(msgspec.json.decode(arguments)["input"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return arguments
