"""OpenAI's responses: reads items as chat-completions messages; `responses_writing` writes answers."""

from collections.abc import Iterator, Mapping, Sequence

from ripieno.domain import Answer, JsonValue, Message
from ripieno.errors import InvalidTask, RipienoError
from ripieno.gateway.dialects.base import ParsedRequest, ResponseSource, encode, list_tools, require, require_sampling
from ripieno.gateway.dialects.responses_writing import ResponsesStreamWriter, write_response
from ripieno.gateway.errors import make_body

OWN_FIELDS = frozenset(
    {
        "model", "input", "instructions", "tools", "tool_choice", "stream", "stream_options", "text", "reasoning",
        "max_output_tokens", "max_tool_calls", "store", "include", "truncation", "previous_response_id",
        "conversation", "background", "prompt", "ripieno", "client_metadata", "context_management",
    }
)  # fmt: skip
"""Fields that are translated, or that no worker knows. All others go to the worker."""


class ResponsesDialect:
    """`POST /v1/responses`."""

    name = "responses"
    comment = b": waiting\n\n"

    def read(self, body: Mapping[str, JsonValue]) -> ParsedRequest:
        """Read a request."""
        model = require(body, "model", str, default="auto")
        require_sampling(body)
        for name in ("previous_response_id", "conversation"):
            if body.get(name):
                raise InvalidTask(f"{name} is not kept here", param=name, hint="send the whole conversation as input")
        if body.get("background") is True:
            raise InvalidTask("background responses are not kept here", param="background")
        given, instructions = body.get("input"), require(body, "instructions", str, default="")
        messages = [Message(role="system", content=instructions)] if instructions else []
        if isinstance(given, str):
            messages.append(Message(role="user", content=given))
        elif isinstance(given, list):
            messages.extend(_read_items(given))
        if not messages or given is None:
            raise InvalidTask("input must be text, or a list of items", param="input")
        tools = tuple(_read_tools(body))
        return ParsedRequest(
            model=model,
            messages=tuple(messages),
            tools=tools,
            params=_read_params(body, has_tools=bool(tools)),
            is_stream=require(body, "stream", bool, default=False),
            body=body,
        )

    def write(self, parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> bytes:
        """Write a whole response."""
        return encode(write_response(parsed, answer, source))

    def stream(self, parsed: ParsedRequest, source: ResponseSource) -> ResponsesStreamWriter:
        """Begin a stream of typed events."""
        return ResponsesStreamWriter(parsed, source)

    def refuse(self, error: RipienoError, *, request: str) -> bytes:
        """Write OpenAI's error object."""
        return encode(make_body(error, request=request))


def _read_items(items: Sequence[JsonValue]) -> Iterator[Message]:
    """Yield the messages of items. Adjacent calls become one message, as chat completions want them."""
    calls: list[JsonValue] = []
    for index, item in enumerate(items):
        place = f"input[{index}]"
        if not isinstance(item, dict):
            raise InvalidTask(f"{place} must be an object", param=place)
        kind = item.get("type") or "message"
        if kind in ("function_call", "custom_tool_call"):
            calls.append(_read_call(item, is_custom=kind == "custom_tool_call"))
            continue
        if calls and kind != "reasoning":
            yield Message(role="assistant", extra={"tool_calls": calls})
            calls = []
        match kind:
            case "message":
                yield _read_message(item, place)
            case "function_call_output" | "custom_tool_call_output":
                yield Message(
                    role="tool",
                    content=_read_output(item.get("output")),
                    extra={"tool_call_id": item.get("call_id")},
                )
            case "item_reference":
                raise InvalidTask(f"{place}: items are not kept here", param=place, hint="send the item itself")
            case _:
                pass  # reasoning of another worker, and items of OpenAI's own service
    if calls:
        yield Message(role="assistant", extra={"tool_calls": calls})


def _read_message(item: Mapping[str, JsonValue], place: str) -> Message:
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str):
        raise InvalidTask(f"{place}.role must be text", param=f"{place}.role")
    if isinstance(content, str):
        return Message(role=role, content=content)
    if not isinstance(content, list):
        raise InvalidTask(f"{place}.content must be text, or a list of parts", param=f"{place}.content")
    parts = [_read_part(part, place) for part in content]
    if all(part["type"] == "text" for part in parts) and (role != "user" or len(parts) == 1):
        return Message(role=role, content="".join(str(part["text"]) for part in parts))
    return Message(role=role, content=parts)


def _read_part(part: JsonValue, place: str) -> dict[str, JsonValue]:
    if not isinstance(part, dict):
        raise InvalidTask(f"every item of {place}.content must be an object", param=f"{place}.content")
    match part.get("type"):
        case "input_text" | "output_text" | "text" | "summary_text":
            return {"type": "text", "text": str(part.get("text") or "")}
        case "refusal":
            return {"type": "text", "text": str(part.get("refusal") or "")}
        case "input_image":
            if not isinstance(part.get("image_url"), str):
                raise InvalidTask(f"{place}: files are not kept here", param=place, hint="send the image as image_url")
            image = {"url": part["image_url"], "detail": part.get("detail") or "auto"}
            return {"type": "image_url", "image_url": image}
        case "input_file":
            names = ("file_data", "filename", "file_id")
            return {"type": "file", "file": {name: part[name] for name in names if part.get(name)}}
        case _:
            return dict(part)


def _read_call(item: Mapping[str, JsonValue], *, is_custom: bool) -> dict[str, JsonValue]:
    arguments = encode({"input": item.get("input")}).decode() if is_custom else item.get("arguments")
    function = {"name": item.get("name"), "arguments": arguments}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _read_output(output: JsonValue) -> str:
    if isinstance(output, str):
        return output
    if isinstance(output, list):
        return "\n".join(str(part.get("text") or "") for part in output if isinstance(part, dict))
    return encode(output).decode()


def _read_tools(body: Mapping[str, JsonValue]) -> Iterator[Mapping[str, JsonValue]]:
    """Read functions, and free-text tools as functions of one text. Tools of OpenAI's own service are left out."""
    for tool in list_tools(body):
        match tool.get("type"):
            case "function":
                function = {name: tool[name] for name in ("name", "description", "parameters") if tool.get(name)}
                if tool.get("strict") is not None:
                    function["strict"] = tool["strict"]
                yield {"type": "function", "function": function}
            case "custom":
                schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
                described = {"name": tool.get("name"), "description": tool.get("description") or ""}
                yield {"type": "function", "function": described | {"parameters": schema}}
            case _:
                pass


def _read_params(body: Mapping[str, JsonValue], *, has_tools: bool) -> dict[str, JsonValue]:
    params = {name: value for name, value in body.items() if name not in OWN_FIELDS}
    if body.get("max_output_tokens") is not None:
        params["max_completion_tokens"] = body["max_output_tokens"]
    reasoning, text, choice = body.get("reasoning"), body.get("text"), body.get("tool_choice")
    if isinstance(reasoning, dict) and reasoning.get("effort"):
        params["reasoning_effort"] = reasoning["effort"]
    if isinstance(text, dict):
        if text.get("verbosity"):
            params["verbosity"] = text["verbosity"]
        form = text.get("format")
        if isinstance(form, dict) and form.get("type") == "json_schema":
            schema = {name: value for name, value in form.items() if name != "type"}
            params["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif isinstance(form, dict) and form.get("type") == "json_object":
            params["response_format"] = {"type": "json_object"}
    if isinstance(choice, str):
        params["tool_choice"] = choice
    elif isinstance(choice, dict) and choice.get("name"):
        params["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    if not has_tools:
        params.pop("tool_choice", None)
        params.pop("parallel_tool_calls", None)
    return params
