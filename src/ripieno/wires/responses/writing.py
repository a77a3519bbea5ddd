"""OpenAI's responses: answers as items, whole or as a stream of typed events."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from ripieno.domain import Answer, JsonValue, Usage
from ripieno.domain.conversation import Citation, Media, Part, Reasoning, Refusal, ServerTool, Text, ToolCall
from ripieno.wires.base import (
    Fault,
    ParsedRequest,
    ResponseSource,
    encode,
    fields_of,
    items_of,
    make_ripieno_field,
    text_of,
)
from ripieno.wires.content import tell
from ripieno.wires.pieces import CallPiece, CallSorter, Piece
from ripieno.wires.responses.parts import WIRE
from ripieno.wires.sse import pack_event
from ripieno.wires.usage import make_responses_usage


def write_response(parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> dict[str, JsonValue]:
    """Make the response object of a whole answer: the worker's own, or one made from the answer."""
    added: dict[str, JsonValue] = {"model": source.worker} | make_ripieno_field(source.provenance)
    if answer.native is not None and answer.native.wire == WIRE:
        return {**fields_of(answer.native.raw), **added}
    items: list[JsonValue] = []
    names = ToolNames(parsed)
    content: list[JsonValue] = []

    def close() -> None:
        if content:
            items.append(_make_message(source, len(items), list(content)))
            content.clear()

    for part in answer.parts:
        if isinstance(part, Text | Refusal):
            content.append(_make_part(part))
            continue
        close()
        items.append(_make_item(source, len(items), part, names))
    close()
    return make_response(parsed, source, items, answer.usage, finish=answer.finish_reason) | added


class ToolNames:
    """The tools of a request by the names under which workers know them."""

    def __init__(self, parsed: ParsedRequest) -> None:
        self._tools: dict[str, tuple[str, str, bool]] = {}
        for tool in items_of(parsed.body.get("tools")):
            self._add(tool, "")

    def _add(self, tool: Mapping[str, JsonValue], group: str) -> None:
        name, kind = text_of(tool.get("name")), tool.get("type")
        if kind == "namespace":
            for inner in items_of(tool.get("tools")):
                self._add(inner, f"{group}{name}")
        elif group or kind == "custom":
            self._tools[f"{group}{name}"] = (group, name, kind == "custom")

    def find(self, name: str) -> tuple[str, str, bool]:
        """Return group, name within the group, and whether the tool takes free text."""
        return self._tools.get(name, ("", name, False))


class ResponsesStreamWriter:
    """Writes typed, numbered events: each item is added, filled and done before the next one."""

    def __init__(self, parsed: ParsedRequest, source: ResponseSource) -> None:
        self._parsed = parsed
        self._source = source
        self._names = ToolNames(parsed)
        self._sorter = CallSorter()
        self._arguments: list[str] = []
        self._last: Mapping[str, JsonValue] | None = None
        """The last event of the worker's own stream."""
        self._has_begun = False
        self._number = -1
        self._done: list[dict[str, JsonValue]] = []
        self._open: tuple[str, int] | None = None
        self._text = ""
        self._call = ToolCall(id="", name="", arguments="")
        self._finish = "stop"
        self._usage = Usage()

    def add(self, piece: Piece) -> bytes:
        """Write the events of one piece."""
        if piece.usage is not None:
            self._usage = piece.usage
        native = piece.native
        if native is not None and native.wire == WIRE:
            return self._pass_on(fields_of(native.raw))
        if piece.finish_reason:
            self._finish = piece.finish_reason
        if not piece.has_content:
            return b""
        events = [self._begin()]
        if piece.reasoning:
            events += [self._turn_to("reasoning"), self._fill("response.reasoning_text.delta", piece.reasoning)]
            self._text += piece.reasoning
        if piece.text:
            events += [self._turn_to("message"), self._fill("response.output_text.delta", piece.text)]
            self._text += piece.text
        if piece.refusal:
            events += [self._turn_to("refusal"), self._fill("response.refusal.delta", piece.refusal)]
            self._text += piece.refusal
        events += [self._write_call(part) for call in piece.calls for part in self._sorter.add(call)]
        events += [self._add_part(part) for part in piece.parts]
        return b"".join(events)

    def end(self, provenance: JsonValue = None) -> bytes:
        """Close the last item and the response."""
        added = make_ripieno_field(provenance)
        if self._last is not None:
            event = self._last
            response = {**fields_of(event.get("response")), "model": self._source.worker, **added}
            return pack_event(text_of(event.get("type")), encode({**event, "response": response}))
        events = self._begin() + self._close_calls()
        response = make_response(self._parsed, self._source, self._done, self._usage, finish=self._finish)
        return events + self._event(f"response.{response['status']}", response=response | added)

    def fail(self, fault: Fault) -> bytes:
        """Write the response as failed, with its error."""
        response = make_response(self._parsed, self._source, self._done, self._usage, finish=None)
        code = "rate_limit_exceeded" if fault.status == 429 else "server_error"
        failed = response | {"status": "failed", "error": {"code": code, "message": fault.message}}
        return self._begin() + self._event("response.failed", response=failed, request_id=fault.request)

    def _begin(self) -> bytes:
        """Write the empty response, at first."""
        if self._has_begun:
            return b""
        self._has_begun = True
        shell = make_response(self._parsed, self._source, [], None, finish=None)
        return self._event("response.created", response=shell) + self._event("response.in_progress", response=shell)

    def _pass_on(self, raw: Mapping[str, JsonValue]) -> bytes:
        """Pass on an event of the worker. Its last one waits for the provenance."""
        self._has_begun = True
        kind, response, number = text_of(raw.get("type")), raw.get("response"), raw.get("sequence_number")
        if isinstance(number, int):
            self._number = number
        if kind in ENDS:
            self._last = raw
            return b""
        if isinstance(response, dict):
            raw = {**raw, "response": {**response, "model": self._source.worker}}
        return pack_event(kind, encode(raw))

    def _add_part(self, part: Part) -> bytes:
        """Write a part that arrived whole."""
        events = self._close_calls()
        item = _make_item(self._source, len(self._done), part, self._names)
        place = len(self._done)
        self._done.append(item)
        added = self._event("response.output_item.added", output_index=place, item=item)
        return events + added + self._event("response.output_item.done", output_index=place, item=item)

    def _close_calls(self) -> bytes:
        """Write the calls that wait, and close the open item."""
        return b"".join(map(self._write_call, self._sorter.flush())) + self._close()

    def _write_call(self, part: CallPiece) -> bytes:
        events = b""
        if self._open != ("call", part.index):
            events = self._close()
            group, name, is_custom = self._names.find(f"{part.namespace}{part.name}")
            self._call = ToolCall(id=part.id, name=name, namespace=group, is_custom=is_custom, arguments="")
            self._arguments = []
            events += self._add_item("call", part.index)
        self._arguments.append(part.arguments)
        # The input of a custom tool is sent whole, after the JSON around it is removed.
        if not part.arguments or self._call.is_custom:
            return events
        return events + self._event(
            "response.function_call_arguments.delta",
            item_id=_name_item("fc", self._source, len(self._done)),
            output_index=len(self._done),
            delta=part.arguments,
        )

    def _turn_to(self, kind: str) -> bytes:
        if self._open == (kind, 0):
            return b""
        return self._close_calls() + self._add_item(kind, 0)

    def _add_item(self, kind: str, place: int) -> bytes:
        self._open, self._text = (kind, place), ""
        item = self._item() | {"status": "in_progress"}
        if kind == "call":
            item |= {"input" if item["type"] == "custom_tool_call" else "arguments": ""}
        else:
            item |= {"content": []}
        events = self._event("response.output_item.added", output_index=len(self._done), item=item)
        if kind in _TEXTS:
            events += self._event("response.content_part.added", **self._place(), part=_TEXTS[kind](""))
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
                part = _make_part(Text(text=self._text))
                events += self._event("response.output_text.done", **self._place(), text=self._text, logprobs=[])
                events += self._event("response.content_part.done", **self._place(), part=part)
            case "refusal":
                part = _make_part(Refusal(text=self._text))
                events += self._event("response.refusal.done", **self._place(), refusal=self._text)
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
                return _make_message(self._source, len(self._done), [_make_part(Text(text=self._text))])
            case "refusal":
                return _make_message(self._source, len(self._done), [_make_part(Refusal(text=self._text))])
            case "reasoning":
                return _make_reasoning(self._source, len(self._done), Reasoning(text=self._text))
            case _:
                call = msgspec.structs.replace(self._call, arguments="".join(self._arguments))
                return _make_call(self._source, len(self._done), call)

    def _place(self) -> dict[str, JsonValue]:
        assert self._open is not None
        prefix, index = "rs" if self._open[0] == "reasoning" else "msg", len(self._done)
        return {"item_id": _name_item(prefix, self._source, index), "output_index": index, "content_index": 0}

    def _event(self, kind: str, **fields: JsonValue) -> bytes:
        self._number += 1
        return pack_event(kind, encode({"type": kind, "sequence_number": self._number, **fields}))


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
        "usage": None if usage is None or finish is None else make_responses_usage(usage),
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


ENDS = frozenset({"response.completed", "response.incomplete"})
"""Events that end a stream of responses."""


def _name_item(prefix: str, source: ResponseSource, index: int) -> str:
    return f"{prefix}_{source.decision}_{index}"


def _make_part(part: Text | Refusal) -> dict[str, JsonValue]:
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    annotations = [_make_annotation(cited, part.text) for cited in part.citations if cited.url]
    return {"type": "output_text", "text": part.text, "annotations": annotations, "logprobs": []}


def _make_annotation(cited: Citation, text: str) -> JsonValue:
    end = len(text) if cited.end is None else cited.end
    named = {"url": cited.url, "title": cited.title}
    return {"type": "url_citation", **named, "start_index": cited.start or 0, "end_index": end}


def _make_message(source: ResponseSource, index: int, content: Sequence[JsonValue]) -> dict[str, JsonValue]:
    return {
        "id": _name_item("msg", source, index),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": list(content),
    }


def _make_reasoning(source: ResponseSource, index: int, part: Reasoning) -> dict[str, JsonValue]:
    content = [{"type": "reasoning_text", "text": part.text}] if part.text else []
    item: dict[str, JsonValue] = {"id": part.id or _name_item("rs", source, index), "type": "reasoning", "summary": []}
    return item | {"content": content} | ({"encrypted_content": part.sealed} if part.sealed else {})


def _make_item(source: ResponseSource, index: int, part: Part, names: ToolNames) -> dict[str, JsonValue]:
    """Make the item of a whole part that is no text."""
    match part:
        case Reasoning():
            return _make_reasoning(source, index, part)
        case ToolCall():
            group, name, is_custom = names.find(f"{part.namespace}{part.name}")
            return _make_call(
                source, index, msgspec.structs.replace(part, name=name, namespace=group, is_custom=is_custom)
            )
        case ServerTool(wire=wire, raw=raw) if wire == WIRE:
            return dict(raw)
        case Media(data=data) if data:
            return {
                "id": _name_item("ig", source, index),
                "type": "image_generation_call",
                "status": "completed",
                "result": data,
            }
        case _:
            return _make_message(source, index, [_make_part(Text(text=tell(part)))])


def _make_call(source: ResponseSource, index: int, call: ToolCall) -> dict[str, JsonValue]:
    item: dict[str, JsonValue] = {
        "id": _name_item("fc", source, index),
        "type": "custom_tool_call" if call.is_custom else "function_call",
        "status": "completed",
        "call_id": call.id or _name_item("call", source, index),
        "name": call.name,
    }
    if call.namespace:
        item["namespace"] = call.namespace
    return item | ({"input": _unwrap_input(call.arguments)} if call.is_custom else {"arguments": call.arguments})


def _unwrap_input(arguments: str) -> str:
    try:
        return str(msgspec.json.decode(arguments)["input"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return arguments


_TEXTS: Mapping[str, Callable[[str], dict[str, JsonValue]]] = {
    "message": lambda text: _make_part(Text(text=text)),
    "refusal": lambda text: _make_part(Refusal(text=text)),
}
"""Makes the content part of an open item of text."""
