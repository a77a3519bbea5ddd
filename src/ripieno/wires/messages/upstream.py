"""Anthropic's messages towards workers: requests out, replies in, whole or as a stream."""

from collections.abc import Mapping, Sequence

from ripieno.domain import Answer, JsonValue, Task, Usage
from ripieno.domain.conversation import Native, Part
from ripieno.errors import BadAnswer, InvalidTask
from ripieno.wires.base import FREE_TEXT, Recipient, fields_of, items_of, overlay, text_of
from ripieno.wires.decoding import decode_object, read_error
from ripieno.wires.messages.client import STOPS
from ripieno.wires.messages.parts import WIRE, read_blocks, write_messages, write_system
from ripieno.wires.pieces import CallPiece, Piece
from ripieno.wires.usage import read_messages_usage

USUAL_TOKENS = 4096
"""Tokens of an answer whose length is not stated: Anthropic's format wants a number."""
BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
"""Thinking tokens of each effort, for models that take no effort."""
_FINISHES = {stop: finish for finish, stop in STOPS.items()} | {"stop_sequence": "stop", "pause_turn": "stop"}


class MessagesUpstream:
    """`POST /messages` of Anthropic, or of a server that speaks its format."""

    name = WIRE

    def path(self, recipient: Recipient, *, is_stream: bool) -> str:
        """Return the path of a request."""
        return "/messages"

    def write(self, task: Task, recipient: Recipient, *, is_stream: bool) -> dict[str, JsonValue]:
        """Write the body of a request: the fields as received from a client of this format, or new ones."""
        fields, params, has_tools = overlay(task, WIRE)
        fields["system"] = write_system(task.messages)
        if not has_tools:
            fields["tools"] = [_write_tool(tool) for tool in task.tools] or None
        body: dict[str, JsonValue] = {
            "model": recipient.model,
            "messages": write_messages(task.messages, recipient),
            **fields,
            **_write_params(params, recipient, known=fields),
        }
        if not body.get("tools"):
            body.pop("tool_choice", None)
        body["max_tokens"] = body.get("max_tokens") or recipient.most_output or USUAL_TOKENS
        if is_stream:
            body["stream"] = True
        return {name: value for name, value in body.items() if value is not None}

    def read(self, content: bytes, *, worker: str) -> Answer:
        """Read a whole reply."""
        decoded = decode_object(content, worker=worker, what="a message")
        body = decoded.fields
        if body.get("type") == "error" or body.get("error"):
            raise BadAnswer(f"{worker!r} answered with an error: {read_error(content)}", worker=worker)
        if not isinstance(body.get("content"), list):
            shown = content[:80].decode("utf-8", "replace")
            raise BadAnswer(f"{worker!r} did not answer with a message: {shown!r}", worker=worker)
        parts = _read_parts(items_of(body["content"]), worker)
        stop = text_of(body.get("stop_reason"))
        finish = _FINISHES.get(stop, "stop")
        if not parts and finish not in ("length", "content_filter") and stop != "pause_turn":
            raise BadAnswer(f"{worker!r} answered with no content", worker=worker)
        usage = read_messages_usage(body.get("usage"))
        native = Native(WIRE, body) if decoded.is_exact and usage.output_tokens is not None else None
        return Answer.of(tuple(parts), usage=usage, finish_reason=finish, native=native)

    def stream(self, *, worker: str) -> "MessagesReader":
        """Begin to read a streamed reply."""
        return MessagesReader(worker)


class MessagesReader:
    """Reads the named events of one reply."""

    def __init__(self, worker: str) -> None:
        self.is_over = self.is_finished = False
        self._worker = worker
        self._usage = Usage()
        self._calls: dict[int, int] = {}
        """Places of the tool calls, by the index of their blocks."""
        self._blocks: dict[int, dict[str, JsonValue]] = {}
        """Blocks that are passed on whole."""
        self._inputs: dict[int, list[str]] = {}
        """JSON of the input of such a block so far, by its index."""

    def read(self, event: str, data: bytes) -> Sequence[Piece]:
        """Read one event."""
        decoded = decode_object(data, worker=self._worker, what="an event of a message")
        fields = decoded.fields
        kind = text_of(fields.get("type")) or event
        native = Native(WIRE, fields) if decoded.is_exact else None
        match kind:
            case "error":
                said = read_error(data)
                raise BadAnswer(f"{self._worker!r} ended its stream with an error: {said}", worker=self._worker)
            case "message_start":
                usage = fields_of(fields.get("message")).get("usage")
                self._usage = read_messages_usage(usage, before=self._usage)
                return (Piece(usage=self._usage, native=native),)
            case "content_block_start":
                return (self._begin(fields, native),)
            case "content_block_delta":
                return (self._fill(fields, native),)
            case "content_block_stop":
                return (Piece(parts=self._end_block(_index(fields)), native=native),)
            case "message_delta":
                return (self._end(fields, native),)
            case "message_stop":
                self.is_over = self.is_finished = True
                return (Piece(native=native),)
            case _:
                return ()  # pings, and events of later versions

    def _begin(self, fields: Mapping[str, JsonValue], native: Native | None) -> Piece:
        index, block = _index(fields), dict(fields_of(fields.get("content_block")))
        match block.get("type"):
            case "text":
                return Piece(text=text_of(block.get("text")), native=native)
            case "thinking":
                return Piece(
                    reasoning=text_of(block.get("thinking")), signature=text_of(block.get("signature")), native=native
                )
            case "tool_use":
                place = self._calls[index] = len(self._calls)
                call = CallPiece(index=place, id=text_of(block.get("id")), name=text_of(block.get("name")))
                return Piece(calls=(call,), native=native)
            case _:
                self._blocks[index] = block
                return Piece(native=native)

    def _fill(self, fields: Mapping[str, JsonValue], native: Native | None) -> Piece:
        index, delta = _index(fields), fields_of(fields.get("delta"))
        match delta.get("type"):
            case "text_delta":
                return Piece(text=text_of(delta.get("text")), native=native)
            case "thinking_delta":
                return Piece(reasoning=text_of(delta.get("thinking")), native=native)
            case "signature_delta":
                return Piece(signature=text_of(delta.get("signature")), native=native)
            case "input_json_delta" if index in self._calls:
                call = CallPiece(index=self._calls[index], arguments=text_of(delta.get("partial_json")))
                return Piece(calls=(call,) if call.arguments else (), native=native)
            case "input_json_delta" if index in self._blocks:
                self._inputs.setdefault(index, []).append(text_of(delta.get("partial_json")))
                return Piece(native=native)
            case _:
                return Piece(native=native)

    def _end_block(self, index: int) -> tuple[Part, ...]:
        """Read a block that is passed on whole, with the input that came in pieces; none for any other block."""
        block, given = self._blocks.pop(index, None), "".join(self._inputs.pop(index, ()))
        if block is None:
            return ()
        if given:
            block["input"] = decode_object(given.encode(), worker=self._worker, what="the input of a tool").fields
        return tuple(_read_parts([block], self._worker))

    def _end(self, fields: Mapping[str, JsonValue], native: Native | None) -> Piece:
        self._usage = read_messages_usage(fields.get("usage"), before=self._usage)
        stop = text_of(fields_of(fields.get("delta")).get("stop_reason"))
        if stop:
            self.is_over = True
        return Piece(finish_reason=_FINISHES.get(stop, "stop") if stop else None, usage=self._usage, native=native)


def _index(fields: Mapping[str, JsonValue]) -> int:
    index = fields.get("index")
    return index if isinstance(index, int) else 0


def _read_parts(blocks: Sequence[Mapping[str, JsonValue]], worker: str) -> list[Part]:
    try:
        return read_blocks(blocks)
    except InvalidTask as error:
        raise BadAnswer(f"{worker!r} sent a block that is none: {error.message}", worker=worker) from error


def _write_tool(tool: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    function = fields_of(tool.get("function")) or fields_of(tool.get("custom"))
    written: dict[str, JsonValue] = {
        "name": function.get("name"),
        "input_schema": function.get("parameters") or {"type": "object"},
    }
    if tool.get("type") == "custom":
        written["input_schema"] = FREE_TEXT
    if function.get("description"):
        written["description"] = function["description"]
    if function.get("strict") is not None:
        written["strict"] = function["strict"]
    return written


def _write_params(
    params: Mapping[str, JsonValue], recipient: Recipient, *, known: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Write request fields in Anthropic's names. Fields that it does not know are left out.

    Args:
        params: the fields in the names of chat completions.
        recipient: the worker.
        known: the fields that stand already.
    """
    written: dict[str, JsonValue] = {}
    for name, value in params.items():
        match name:
            case "max_tokens" | "max_completion_tokens" if value is not None:
                written["max_tokens"] = value
            case "temperature":
                written[name] = min(value, 1.0) if isinstance(value, int | float) else None
            case "stop":
                written["stop_sequences"] = [value] if isinstance(value, str) else value
            case "user":
                written["metadata"] = {"user_id": value} if value is not None else None
            case "response_format":
                written |= _write_format(value, fields_of(known.get("output_config")))
            case "top_p" | "top_k":
                written[name] = value
            case _:
                continue
    if "tool_choice" in params or params.get("parallel_tool_calls") is False:
        written["tool_choice"] = _write_choice(params, fields_of(known.get("tool_choice")))
    effort = text_of(params.get("reasoning_effort"))
    if effort and effort != "none":
        written |= _write_effort(effort, recipient, {**known, **written})
    return written


def _write_choice(params: Mapping[str, JsonValue], known: Mapping[str, JsonValue]) -> JsonValue:
    """Write the choice of tools: that of `params`, else the one that stands already, else any."""
    value = params.get("tool_choice", "auto")
    if value is None:
        return None
    kinds = {"auto": "auto", "required": "any", "none": "none"}
    named = fields_of(fields_of(value).get("function")).get("name")
    choice: dict[str, JsonValue] = {"type": "tool", "name": named} if named else {"type": kinds.get(str(value), "auto")}
    if known and "tool_choice" not in params:
        choice = dict(known)
    if params.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _write_format(value: JsonValue, config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    shape = fields_of(value)
    if shape.get("type") != "json_schema":
        return {}
    schema = fields_of(shape.get("json_schema")).get("schema")
    return {"output_config": {**config, "format": {"type": "json_schema", "schema": schema}}}


def _write_effort(effort: str, recipient: Recipient, known: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Write an effort: in its own field where the model has one, else as a budget of thinking tokens.

    Args:
        effort: the effort.
        recipient: the worker.
        known: the fields that stand already.
    """
    if recipient.takes_effort:
        stated = fields_of(known.get("output_config"))
        return {"output_config": {**stated, "effort": "low" if effort == "minimal" else effort}}
    budget, most = BUDGETS.get(effort, BUDGETS["medium"]), known.get("max_tokens") or recipient.most_output
    if isinstance(most, int):
        budget = min(budget, most // 2)
    if budget < BUDGETS["minimal"]:
        return {}  # the answer is too short for any thinking
    thinking: dict[str, JsonValue] = {"thinking": {"type": "enabled", "budget_tokens": budget}, "temperature": None}
    return thinking if isinstance(most, int) else thinking | {"max_tokens": budget + USUAL_TOKENS}
