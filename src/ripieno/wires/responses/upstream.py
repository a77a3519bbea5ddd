"""OpenAI's responses towards workers: requests out, replies in, whole or as a stream."""

from collections.abc import Mapping, Sequence

from msgspec import structs

from ripieno.domain import Answer, JsonValue, Task
from ripieno.domain.conversation import Native, Part, Reasoning, ToolCall
from ripieno.errors import BadAnswer, InvalidTask
from ripieno.wires.base import ONLY_WITH_TOOLS, Recipient, fields_of, items_of, overlay, text_of
from ripieno.wires.decoding import decode_object, read_error
from ripieno.wires.pieces import CallPiece, Piece
from ripieno.wires.responses.parts import CALLS, WIRE, read_output_item, write_items
from ripieno.wires.usage import read_responses_usage

_PASSED = frozenset(
    {
        "temperature", "top_p", "user", "metadata", "parallel_tool_calls", "service_tier", "prompt_cache_key",
        "safety_identifier",
    }
)  # fmt: skip
"""Fields with the same name and meaning in chat completions."""
_DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
}
_ARGUMENTS = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")


class ResponsesUpstream:
    """`POST /responses` of OpenAI, or of a server that speaks its format."""

    name = WIRE

    def path(self, recipient: Recipient, *, is_stream: bool) -> str:
        """Return the path of a request."""
        return "/responses"

    def write(self, task: Task, recipient: Recipient, *, is_stream: bool) -> dict[str, JsonValue]:
        """Write the body of a request: the fields as received from a client of this format, or new ones."""
        fields, params, has_tools = overlay(task, WIRE)
        is_own = task.native is not None and task.native.wire == WIRE
        if not has_tools:
            fields["tools"] = [_write_tool(tool) for tool in task.tools] or None
        messages = list(task.messages)
        if messages[0].role == "system" and len(messages) > 1:
            fields["instructions"] = messages.pop(0).text
        body: dict[str, JsonValue] = {
            "model": recipient.model,
            "input": write_items(messages, recipient),
            **({} if is_own else {"store": False, "include": ["reasoning.encrypted_content"]}),
            **fields,
            **_write_params(params, known=fields),
        }
        if not body.get("tools"):
            body |= dict.fromkeys(ONLY_WITH_TOOLS)
        if is_stream:
            body["stream"] = True
        return {name: value for name, value in body.items() if value is not None}

    def read(self, content: bytes, *, worker: str) -> Answer:
        """Read a whole reply."""
        decoded = decode_object(content, worker=worker, what="a response")
        body = decoded.fields
        if body.get("error") or body.get("status") == "failed":
            raise BadAnswer(f"{worker!r} answered with an error: {read_error(content)}", worker=worker)
        if not isinstance(body.get("output"), list):
            shown = content[:80].decode("utf-8", "replace")
            raise BadAnswer(f"{worker!r} did not answer with a response: {shown!r}", worker=worker)
        parts = _read_output(items_of(body["output"]), worker)
        finish = _read_finish(body, has_calls=any(isinstance(part, ToolCall) for part in parts))
        if not parts and finish not in ("length", "content_filter"):
            raise BadAnswer(f"{worker!r} answered with no content", worker=worker)
        usage = read_responses_usage(body.get("usage"))
        native = Native(WIRE, body) if decoded.is_exact and usage.output_tokens is not None else None
        return Answer.of(tuple(parts), usage=usage, finish_reason=finish, native=native)

    def stream(self, *, worker: str) -> "ResponsesReader":
        """Begin to read a streamed reply."""
        return ResponsesReader(worker)


class ResponsesReader:
    """Reads the typed events of one reply."""

    def __init__(self, worker: str) -> None:
        self.is_over = self.is_finished = False
        self._worker = worker
        self._calls: dict[int, int] = {}
        """Places of the tool calls, by the index of their items."""
        self._has_arguments: set[int] = set()

    def read(self, event: str, data: bytes) -> Sequence[Piece]:
        """Read one event."""
        if data == b"[DONE]":
            return ()
        decoded = decode_object(data, worker=self._worker, what="an event of a response")
        fields = decoded.fields
        kind = text_of(fields.get("type")) or event
        native = Native(WIRE, fields) if decoded.is_exact else None
        response, index = fields_of(fields.get("response")), _index(fields)
        if kind in _DELTAS:
            return (_make_text(_DELTAS[kind], text_of(fields.get("delta")), native),)
        if kind in _ARGUMENTS and index in self._calls:
            self._has_arguments.add(index)
            call = CallPiece(index=self._calls[index], arguments=text_of(fields.get("delta")))
            return (Piece(calls=(call,) if call.arguments else (), native=native),)
        match kind:
            case "error" | "response.failed":
                error = fields_of(response.get("error")) or fields
                said = text_of(error.get("message")) or read_error(data)
                raise BadAnswer(f"{self._worker!r} ended its stream with an error: {said}", worker=self._worker)
            case "response.output_item.added":
                return (Piece(calls=self._begin_call(index, fields_of(fields.get("item"))), native=native),)
            case "response.output_item.done":
                return (self._end_item(index, fields_of(fields.get("item")), native),)
            case "response.completed" | "response.incomplete":
                self.is_over = self.is_finished = True
                finish = _read_finish(response, has_calls=bool(self._calls))
                usage = read_responses_usage(response.get("usage"))
                return (Piece(finish_reason=finish, usage=usage, native=native),)
            case _ if kind.startswith("response."):
                return (Piece(native=native),)
            case _:
                return ()

    def _begin_call(self, index: int, item: Mapping[str, JsonValue]) -> tuple[CallPiece, ...]:
        if item.get("type") not in CALLS:
            return ()
        place = self._calls[index] = len(self._calls)
        named = CallPiece(
            index=place,
            id=text_of(item.get("call_id")),
            name=text_of(item.get("name")),
            namespace=text_of(item.get("namespace")),
            is_custom=item.get("type") == CALLS[1],
        )
        return (named,)

    def _end_item(self, index: int, item: Mapping[str, JsonValue], native: Native | None) -> Piece:
        """Read what of a finished item has not been streamed: arguments, sealed reasoning, tools of the vendor."""
        if index in self._calls:
            whole = text_of(item.get("arguments")) or text_of(item.get("input"))
            if index in self._has_arguments or not whole:
                return Piece(native=native)
            return Piece(calls=(CallPiece(index=self._calls[index], arguments=whole),), native=native)
        parts = _read_output([item], self._worker) if item.get("type") != "message" else []
        kept: list[Part] = []
        for part in parts:
            if isinstance(part, Reasoning) and part.sealed:
                kept.append(structs.replace(part, text=""))  # its text was streamed
            elif not isinstance(part, Reasoning):
                kept.append(part)
        return Piece(parts=tuple(kept), native=native)


def _make_text(name: str, delta: str, native: Native | None) -> Piece:
    match name:
        case "text":
            return Piece(text=delta, native=native)
        case "refusal":
            return Piece(refusal=delta, native=native)
        case _:
            return Piece(reasoning=delta, native=native)


def _index(fields: Mapping[str, JsonValue]) -> int:
    index = fields.get("output_index")
    return index if isinstance(index, int) else 0


def _read_output(items: Sequence[Mapping[str, JsonValue]], worker: str) -> list[Part]:
    try:
        return [part for item in items for part in read_output_item(item)]
    except InvalidTask as error:
        raise BadAnswer(f"{worker!r} sent an item that is none: {error.message}", worker=worker) from error


def _read_finish(response: Mapping[str, JsonValue], *, has_calls: bool) -> str:
    if response.get("status") == "incomplete":
        reason = fields_of(response.get("incomplete_details")).get("reason")
        return "content_filter" if reason == "content_filter" else "length"
    return "tool_calls" if has_calls else "stop"


def _write_tool(tool: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    if tool.get("type") != "function":
        return {"type": tool.get("type"), **fields_of(tool.get(str(tool.get("type"))))}
    function = fields_of(tool.get("function"))
    return {"type": "function", "strict": False, **function}


def _write_params(params: Mapping[str, JsonValue], *, known: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Write request fields in the names of responses. Fields that it does not know are left out."""
    written: dict[str, JsonValue] = {}
    for name, value in params.items():
        match name:
            case "max_tokens" | "max_completion_tokens" if value is not None:
                written["max_output_tokens"] = value
            case "reasoning_effort":
                written["reasoning"] = {**fields_of(known.get("reasoning")), "effort": value}
            case "verbosity":
                text = fields_of(written.get("text")) or fields_of(known.get("text"))
                written["text"] = {**text, "verbosity": value}
            case "response_format":
                text = fields_of(written.get("text")) or fields_of(known.get("text"))
                written["text"] = {**text, "format": _write_format(fields_of(value))}
            case "tool_choice":
                named = fields_of(fields_of(value).get("function")).get("name")
                written["tool_choice"] = {"type": "function", "name": named} if named else value
            case _ if name in _PASSED:
                written[name] = value
            case _:
                continue
    return written


def _write_format(value: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    if value.get("type") != "json_schema":
        return {"type": value.get("type") or "text"}
    return {"type": "json_schema", **fields_of(value.get("json_schema"))}
