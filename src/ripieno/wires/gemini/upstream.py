"""Google's Gemini towards workers: requests out, replies in, whole or as a stream."""

import secrets
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from msgspec import structs

from ripieno.domain import Answer, JsonValue, Task
from ripieno.domain.conversation import Part, Reasoning, Text, ToolCall
from ripieno.errors import BadAnswer
from ripieno.wires.base import FREE_TEXT, Recipient, fields_of, items_of, text_of
from ripieno.wires.decoding import decode_object, read_error
from ripieno.wires.gemini.parts import WIRE, read_part, write_contents, write_system
from ripieno.wires.pieces import Piece, cut_call
from ripieno.wires.usage import read_gemini_usage

BUDGETS = {"none": 0, "minimal": 512, "low": 1_024, "medium": 8_192, "high": 24_576}
"""Thinking tokens of each effort."""
_FILTERED = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"}
)  # fmt: skip
_FAULTS = frozenset({"MALFORMED_FUNCTION_CALL", "OTHER", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"})
_NAMES = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
"""Generation settings of the same meaning, by their names in chat completions."""
_REFUSED = frozenset(
    {"additionalProperties", "$schema", "$id", "strict", "default", "examples", "const", "patternProperties"}
)  # fmt: skip
"""Words of JSON schema that Google's subset refuses."""


class GeminiUpstream:
    """`POST /models/NAME:generateContent`."""

    name = WIRE

    def path(self, recipient: Recipient, *, is_stream: bool) -> str:
        """Return the path of a request."""
        verb = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
        model = recipient.model if "/" in recipient.model else f"models/{recipient.model}"
        return f"/{quote(model, safe='/.-_@')}:{verb}"

    def write(self, task: Task, recipient: Recipient, *, is_stream: bool) -> dict[str, JsonValue]:
        """Write the body of a request."""
        body: dict[str, JsonValue] = {"contents": write_contents(task.messages, recipient)}
        if (system := write_system(task.messages)) is not None:
            body["systemInstruction"] = system
        if task.tools:
            body["tools"] = [{"functionDeclarations": [_write_tool(tool) for tool in task.tools]}]
            if (choice := _write_choice(task.params.get("tool_choice"))) is not None:
                body["toolConfig"] = {"functionCallingConfig": choice}
        if config := _write_config(task.params):
            body["generationConfig"] = config
        return body

    def read(self, content: bytes, *, worker: str) -> Answer:
        """Read a whole reply."""
        body = decode_object(content, worker=worker, what="a reply of Gemini").fields
        if body.get("error"):
            raise BadAnswer(f"{worker!r} answered with an error: {read_error(content)}", worker=worker)
        reader = GeminiReader(worker)
        parts, finish = reader.read_parts(body)
        if not parts and finish not in ("length", "content_filter"):
            raise BadAnswer(f"{worker!r} answered with no content", worker=worker)
        usage = read_gemini_usage(body.get("usageMetadata"))
        return Answer.of(tuple(parts), usage=usage, finish_reason=finish or "stop")

    def stream(self, *, worker: str) -> "GeminiReader":
        """Begin to read a streamed reply."""
        return GeminiReader(worker)


class GeminiReader:
    """Reads the events of one reply, each a reply of its own with some parts."""

    def __init__(self, worker: str) -> None:
        self.is_over = self.is_finished = False
        self._worker = worker
        self._calls = 0

    def read(self, event: str, data: bytes) -> Sequence[Piece]:
        """Read one event."""
        body = decode_object(data, worker=self._worker, what="a reply of Gemini").fields
        if body.get("error"):
            raise BadAnswer(f"{self._worker!r} ended its stream with an error: {read_error(data)}", worker=self._worker)
        before = self._calls
        parts, finish = self.read_parts(body)
        pieces: list[Piece] = []
        for part in parts:
            match part:
                case Text(text=text):
                    pieces.append(Piece(text=text))
                case Reasoning(text=text, signature=signature):
                    pieces.append(Piece(reasoning=text, signature=signature))
                case ToolCall():
                    pieces.append(Piece(calls=(cut_call(part, before),)))
                    before += 1
                case _:
                    pieces.append(Piece(parts=(part,)))
        usage = read_gemini_usage(body["usageMetadata"]) if body.get("usageMetadata") else None
        if finish is not None:
            self.is_over = True
        if finish is not None or usage is not None:
            pieces.append(Piece(finish_reason=finish, usage=usage))
        return pieces

    def read_parts(self, body: Mapping[str, JsonValue]) -> tuple[list[Part], str | None]:
        """Read the parts of a reply, and why it ended; None if it goes on.

        Raises:
            BadAnswer: the worker says that its answer is broken.
        """
        blocked = text_of(fields_of(body.get("promptFeedback")).get("blockReason"))
        candidates = items_of(body.get("candidates"))
        if not candidates:
            return [], "content_filter" if blocked else None
        candidate = candidates[0]
        parts: list[Part] = []
        for raw in items_of(fields_of(candidate.get("content")).get("parts")):
            part = read_part(raw, self._calls)
            if isinstance(part, ToolCall):
                self._calls += 1
                if not fields_of(raw.get("functionCall")).get("id"):
                    part = structs.replace(part, id=f"call_{secrets.token_hex(8)}")
            if part is not None:
                parts.append(part)
        reason = text_of(candidate.get("finishReason"))
        if reason in _FAULTS and not parts:
            raise BadAnswer(f"{self._worker!r} ended its answer with {reason}", worker=self._worker)
        return parts, self._name_finish(reason)

    def _name_finish(self, reason: str) -> str | None:
        if not reason or reason == "FINISH_REASON_UNSPECIFIED":
            return None
        if reason == "MAX_TOKENS":
            return "length"
        if reason in _FILTERED:
            return "content_filter"
        return "tool_calls" if self._calls else "stop"


def _write_tool(tool: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    function = fields_of(tool.get("function")) or fields_of(tool.get("custom"))
    schema = function.get("parameters") if tool.get("type") == "function" else FREE_TEXT
    written: dict[str, JsonValue] = {"name": function.get("name")}
    if function.get("description"):
        written["description"] = function["description"]
    if schema:
        written["parameters"] = fit_schema(schema)
    return written


def fit_schema(schema: JsonValue) -> JsonValue:
    """Return a JSON schema without the words that Google refuses."""
    if isinstance(schema, list):
        return [fit_schema(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    fitted: dict[str, JsonValue] = {}
    for name, value in schema.items():
        if name == "const":
            fitted["enum"] = [value]
        elif name == "properties" and isinstance(value, Mapping):
            fitted[name] = {key: fit_schema(inner) for key, inner in value.items()}
        elif name == "type" and isinstance(value, list):
            kinds = [kind for kind in value if kind != "null"]
            fitted |= {"type": kinds[0] if kinds else "string"} | ({"nullable": True} if "null" in value else {})
        elif name not in _REFUSED:
            fitted[name] = fit_schema(value)
    return fitted


def _write_choice(value: JsonValue) -> JsonValue:
    kinds = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
    if isinstance(value, str):
        return {"mode": kinds.get(value, "AUTO")}
    name = fields_of(fields_of(value).get("function")).get("name")
    return {"mode": "ANY", "allowedFunctionNames": [name]} if name else None


def _write_config(params: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    config = {_NAMES[name]: value for name, value in params.items() if name in _NAMES and value is not None}
    stop = params.get("stop")
    if stop:
        config["stopSequences"] = [stop] if isinstance(stop, str) else stop
    form = fields_of(params.get("response_format"))
    if text_of(form.get("type")).startswith("json"):
        config["responseMimeType"] = "application/json"
        schema = fields_of(form.get("json_schema")).get("schema")
        if schema:
            config["responseJsonSchema"] = schema
    effort = params.get("reasoning_effort")
    if effort in BUDGETS:
        config["thinkingConfig"] = {"thinkingBudget": BUDGETS[str(effort)], "includeThoughts": effort != "none"}
    return config
