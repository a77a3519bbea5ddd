"""OpenAI's responses towards clients: reads requests; `writing` writes answers."""

from collections.abc import Iterator, Mapping

from ripieno.domain import Answer, JsonValue, Message
from ripieno.domain.conversation import NativeRequest
from ripieno.errors import InvalidTask
from ripieno.wires.base import (
    FREE_TEXT,
    Fault,
    ParsedRequest,
    ResponseSource,
    encode,
    fields_of,
    items_of,
    list_tools,
    make_error_body,
    require,
    require_model,
    require_sampling,
    text_of,
)
from ripieno.wires.responses.parts import WIRE, read_items
from ripieno.wires.responses.writing import ResponsesStreamWriter, write_response

OWN_FIELDS = frozenset({"model", "input", "instructions", "stream", "ripieno"})
_TRANSLATED = frozenset(
    {
        "tools", "tool_choice", "stream_options", "text", "reasoning", "max_output_tokens", "max_tool_calls", "store",
        "include", "truncation", "previous_response_id", "conversation", "background", "prompt", "client_metadata",
        "context_management",
    }
)  # fmt: skip
"""Fields that are translated, or that only OpenAI's own service knows. All others go to every worker."""


class ResponsesDialect:
    """`POST /v1/responses`."""

    name = WIRE
    comment = b": waiting\n\n"

    def read(self, body: Mapping[str, JsonValue]) -> ParsedRequest:
        """Read a request."""
        model = require_model(body)
        require_sampling(body)
        if body.get("background") is True:
            raise InvalidTask("background responses are not kept here", param="background")
        given, instructions = body.get("input"), require(body, "instructions", str, default="")
        messages = [Message(role="system", content=instructions)] if instructions else []
        if isinstance(given, str):
            messages.append(Message(role="user", content=given))
        elif isinstance(given, list):
            messages.extend(read_items(given))
        if not messages or given is None:
            raise InvalidTask("input must be text, or a list of items", param="input")
        tools, served = _read_tools(body)
        params = _read_params(body, has_tools=bool(tools))
        fields = {name: value for name, value in body.items() if name not in OWN_FIELDS}
        return ParsedRequest(
            model=model,
            messages=tuple(messages),
            tools=tools,
            params=params,
            is_stream=require(body, "stream", bool, default=False),
            served_tools=served,
            native=NativeRequest(wire=WIRE, fields=fields, tools=tools, params=params),
            body=body,
        )

    def write(self, parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> bytes:
        """Write a whole response."""
        return encode(write_response(parsed, answer, source))

    def stream(self, parsed: ParsedRequest, source: ResponseSource) -> ResponsesStreamWriter:
        """Begin a stream of typed events."""
        return ResponsesStreamWriter(parsed, source)

    def refuse(self, fault: Fault) -> bytes:
        """Write OpenAI's error object."""
        return encode(make_error_body(fault))


def _read_tools(body: Mapping[str, JsonValue]) -> tuple[tuple[Mapping[str, JsonValue], ...], tuple[str, ...]]:
    """Read functions, and free-text tools as functions of one text; and the names of tools that OpenAI runs."""
    tools: list[Mapping[str, JsonValue]] = []
    served = []
    for tool in list_tools(body):
        found = list(_read_tool(tool, ""))
        tools.extend(found)
        if not found:
            served.append(text_of(tool.get("type")) or "unnamed")
    return tuple(tools), tuple(served)


def _read_tool(tool: Mapping[str, JsonValue], group: str) -> Iterator[Mapping[str, JsonValue]]:
    """Yield the functions of a tool. Those of a group have the group's name before their own."""
    match tool.get("type"):
        case "function":
            function = {name: tool[name] for name in ("name", "description", "parameters") if tool.get(name)}
            function["name"] = f"{group}{tool.get('name')}"
            if tool.get("strict") is not None:
                function["strict"] = tool["strict"]
            yield {"type": "function", "function": function}
        case "custom":
            described = {"name": f"{group}{tool.get('name')}", "description": tool.get("description") or ""}
            yield {"type": "function", "function": described | {"parameters": FREE_TEXT}}
        case "namespace":
            for inner in items_of(tool.get("tools")):
                yield from _read_tool(inner, f"{group}{text_of(tool.get('name'))}")
        case _:
            pass


def _read_params(body: Mapping[str, JsonValue], *, has_tools: bool) -> dict[str, JsonValue]:
    params = {name: value for name, value in body.items() if name not in OWN_FIELDS and name not in _TRANSLATED}
    if body.get("max_output_tokens") is not None:
        params["max_completion_tokens"] = body["max_output_tokens"]
    reasoning, text, choice = fields_of(body.get("reasoning")), fields_of(body.get("text")), body.get("tool_choice")
    if reasoning.get("effort"):
        params["reasoning_effort"] = reasoning["effort"]
    if text.get("verbosity"):
        params["verbosity"] = text["verbosity"]
    form = fields_of(text.get("format"))
    if form.get("type") == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        params["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form.get("type") == "json_object":
        params["response_format"] = {"type": "json_object"}
    if isinstance(choice, str):
        params["tool_choice"] = choice
    elif isinstance(choice, dict) and choice.get("type") in ("function", "custom") and choice.get("name"):
        name = f"{text_of(choice.get('namespace'))}{choice['name']}"
        params["tool_choice"] = {"type": "function", "function": {"name": name}}
    if not has_tools:
        params.pop("tool_choice", None)
        params.pop("parallel_tool_calls", None)
    return params
