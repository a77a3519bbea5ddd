"""OpenAI's responses: answers as items, whole or as a stream of typed events."""

from collections.abc import Callable, Mapping

import msgspec

from ripieno.domain import Answer, JsonValue, Usage
from ripieno.domain.conversation import Part, Reasoning, Refusal, Text, ToolCall
from ripieno.wires.base import (
    Fault,
    ParsedRequest,
    ResponseSource,
    encode,
    fields_of,
    make_ripieno_field,
    text_of,
)
from ripieno.wires.pieces import CallPiece, CallSorter, Piece
from ripieno.wires.responses.items import (
    ToolNames,
    make_call,
    make_item,
    make_message,
    make_part,
    make_reasoning,
    make_response,
    name_item,
    name_response,
)
from ripieno.wires.responses.parts import WIRE
from ripieno.wires.sse import pack_event


def write_response(parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> dict[str, JsonValue]:
    """Make the response object of a whole answer: the worker's own, or one made from the answer."""
    added: dict[str, JsonValue] = {"model": source.worker} | make_ripieno_field(source.provenance)
    if answer.native is not None and answer.native.wire == WIRE:
        return {**fields_of(answer.native.raw), **parsed.echo, "id": name_response(source), **added}
    items: list[JsonValue] = []
    names = ToolNames(parsed)
    content: list[JsonValue] = []

    def close() -> None:
        if content:
            items.append(make_message(source, len(items), list(content)))
            content.clear()

    for part in answer.parts:
        if isinstance(part, Text | Refusal):
            content.append(make_part(part))
            continue
        close()
        items.append(make_item(source, len(items), part, names))
    close()
    return make_response(parsed, source, items, answer.usage, finish=answer.finish_reason) | added


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
            response = self._own(fields_of(event.get("response"))) | added
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
            raw = {**raw, "response": self._own(response)}
        return pack_event(kind, encode(raw))

    def _own(self, response: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return a worker's response with the names that it has here."""
        named = {"id": name_response(self._source), "model": self._source.worker}
        return {**response, **self._parsed.echo, **named}

    def _add_part(self, part: Part) -> bytes:
        """Write a part that arrived whole."""
        events = self._close_calls()
        item = make_item(self._source, len(self._done), part, self._names)
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
            item_id=name_item("fc", self._source, len(self._done)),
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
                part = make_part(Text(text=self._text))
                events += self._event("response.output_text.done", **self._place(), text=self._text, logprobs=[])
                events += self._event("response.content_part.done", **self._place(), part=part)
            case "refusal":
                part = make_part(Refusal(text=self._text))
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
                return make_message(self._source, len(self._done), [make_part(Text(text=self._text))])
            case "refusal":
                return make_message(self._source, len(self._done), [make_part(Refusal(text=self._text))])
            case "reasoning":
                return make_reasoning(self._source, len(self._done), Reasoning(text=self._text))
            case _:
                call = msgspec.structs.replace(self._call, arguments="".join(self._arguments))
                return make_call(self._source, len(self._done), call)

    def _place(self) -> dict[str, JsonValue]:
        assert self._open is not None
        prefix, index = "rs" if self._open[0] == "reasoning" else "msg", len(self._done)
        return {"item_id": name_item(prefix, self._source, index), "output_index": index, "content_index": 0}

    def _event(self, kind: str, **fields: JsonValue) -> bytes:
        self._number += 1
        return pack_event(kind, encode({"type": kind, "sequence_number": self._number, **fields}))


ENDS = frozenset({"response.completed", "response.incomplete"})
"""Events that end a stream of responses."""


_TEXTS: Mapping[str, Callable[[str], dict[str, JsonValue]]] = {
    "message": lambda text: make_part(Text(text=text)),
    "refusal": lambda text: make_part(Refusal(text=text)),
}
"""Makes the content part of an open item of text."""
