"""OpenAI's responses: items to chat-completions messages, and answers back to items."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ripieno.domain import Answer, JsonValue, Message, Usage
from ripieno.errors import InvalidTask, RipienoError
from ripieno.gateway.dialects.base import (
    Asked,
    Origin,
    encode,
    find_calls,
    find_reasoning,
    list_tools,
    require,
    require_sampling,
    say,
)
from ripieno.gateway.errors import find_wire, make_body, tell
from ripieno.providers import Piece

OWN_FIELDS = frozenset(
    {
        "model", "input", "instructions", "tools", "tool_choice", "stream", "stream_options", "text", "reasoning",
        "max_output_tokens", "max_tool_calls", "store", "include", "truncation", "previous_response_id",
        "conversation", "background", "prompt", "ripieno", "client_metadata", "context_management",
    }
)  # fmt: skip
"""Fields that are translated, or mean nothing to a worker; all others go to it."""


class ResponsesDialect:
    """`POST /v1/responses`."""

    comment = b": waiting\n\n"

    def read(self, body: Mapping[str, JsonValue]) -> Asked:
        """Read a request."""
        model = require(body, "model", str, default="auto")
        require_sampling(body)
        for name in ("previous_response_id", "conversation"):
            if body.get(name):
                raise InvalidTask(f"{name} is not kept here", param=name, hint="send the whole conversation as input")
        if body.get("background") is True:
            raise InvalidTask("background responses are not kept here", param="background")
        given, instructions = body.get("input"), require(body, "instructions", str)
        messages = [Message(role="system", content=instructions)] if instructions else []
        if isinstance(given, str):
            messages.append(Message(role="user", content=given))
        elif isinstance(given, list):
            messages.extend(_read_items(given))
        if not messages or given is None:
            raise InvalidTask("input must be text, or a list of items", param="input")
        tools = tuple(_read_tools(body))
        return Asked(
            model=str(model),
            messages=tuple(messages),
            tools=tools,
            params=_read_params(body, has_tools=bool(tools)),
            is_stream=require(body, "stream", bool, default=False) is True,
            body=body,
        )

    def write(self, asked: Asked, answer: Answer, origin: Origin) -> bytes:
        """A whole response."""
        items: list[JsonValue] = []
        thinking = find_reasoning(answer.message)
        if thinking:
            items.append(_make_reasoning(origin, len(items), thinking))
        if answer.text:
            items.append(_make_message(origin, len(items), answer.text))
        for call in find_calls(answer.message):
            items.append(_make_call(origin, len(items), _Call.of(call), _custom_names(asked)))  # counts
        response = make_response(asked, origin, items, answer.usage, finish=answer.finish_reason)
        return encode(response | say(origin.told))

    def stream(self, asked: Asked, origin: Origin) -> "ResponsesWriting":
        """Begin a stream of typed events."""
        return ResponsesWriting(asked, origin)

    def refuse(self, error: RipienoError, *, request: str) -> bytes:
        """OpenAI's error object."""
        return encode(make_body(error))


class _Call:
    """A tool call in the making."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = ""

    @classmethod
    def of(cls, part: Mapping[str, JsonValue]) -> "_Call":
        call = cls()
        call.add(part)
        return call

    def add(self, part: Mapping[str, JsonValue]) -> str:
        """Take one part; gives what it adds to the arguments."""
        self.id = str(part.get("id") or self.id)
        function = part.get("function")
        if not isinstance(function, Mapping):
            return ""
        self.name += str(function.get("name") or "")
        more = str(function.get("arguments") or "")
        self.arguments += more
        return more


class ResponsesWriting:
    """Typed, numbered events: one item after the other, each added, filled and done."""

    def __init__(self, asked: Asked, origin: Origin) -> None:
        self._asked = asked
        self._origin = origin
        self._custom = _custom_names(asked)
        self._number = -1
        self._done: list[dict[str, JsonValue]] = []
        self._open: tuple[str, int] | None = None
        self._text = ""
        self._call = _Call()
        self._finish = "stop"
        self._usage = Usage()

    def begin(self) -> bytes:
        """The empty response."""
        shell = make_response(self._asked, self._origin, [], None, finish=None)
        return self._event("response.created", response=shell) + self._event("response.in_progress", response=shell)

    def add(self, piece: Piece) -> bytes:
        """The events of one piece."""
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

    def end(self, told: JsonValue = None) -> bytes:
        """Close the last item and the response."""
        events = self._close()
        response = make_response(self._asked, self._origin, self._done, self._usage, finish=self._finish) | say(told)
        return events + self._event(f"response.{response['status']}", response=response)

    def fail(self, error: RipienoError) -> bytes:
        """The response as failed, with its error."""
        response = make_response(self._asked, self._origin, self._done, self._usage, finish=None)
        code = "rate_limit_exceeded" if find_wire(error).status == 429 else "server_error"
        failed = response | {"status": "failed", "error": {"code": code, "message": tell(error)}}
        return self._event("response.failed", response=failed)

    def _add_call(self, part: Mapping[str, JsonValue]) -> bytes:
        index = part.get("index")
        place = index if isinstance(index, int) else 0
        if self._open == ("call", place):
            more = self._call.add(part)
            events = b""
        else:
            events = self._close()
            self._call = _Call()
            more = self._call.add(part)
            events += self._add_item("call", place)
        if not more:
            return events
        is_custom = self._call.name in self._custom
        if is_custom:  # its input is told whole, once its wrapping is off
            return events
        return events + self._event(
            "response.function_call_arguments.delta",
            item_id=self._item_id("fc"),
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
        """Tell that the open item is done."""
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
                return _make_message(self._origin, len(self._done), self._text)
            case "reasoning":
                return _make_reasoning(self._origin, len(self._done), self._text)
            case _:
                return _make_call(self._origin, len(self._done), self._call, self._custom)

    def _place(self) -> dict[str, JsonValue]:
        assert self._open is not None
        prefix = "msg" if self._open[0] == "message" else "rs"
        return {"item_id": self._item_id(prefix), "output_index": len(self._done), "content_index": 0}

    def _item_id(self, prefix: str) -> str:
        return _name_item(prefix, self._origin, len(self._done))

    def _event(self, kind: str, **fields: JsonValue) -> bytes:
        self._number += 1
        data = encode({"type": kind, "sequence_number": self._number, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def make_response(
    asked: Asked, origin: Origin, items: Sequence[JsonValue], usage: Usage | None, *, finish: str | None
) -> dict[str, JsonValue]:
    """The response object; all keys that clients read are there.

    Args:
        asked: the request, whose settings it repeats.
        origin: where it comes from.
        items: what was put out so far.
        usage: token counts, once they are known.
        finish: why the worker stopped; None while it has not.
    """
    body = asked.body
    is_cut = finish in ("length", "content_filter")
    status = "in_progress" if finish is None else "incomplete" if is_cut else "completed"
    reason = "max_output_tokens" if finish == "length" else "content_filter"
    return {
        "id": f"resp_{origin.decision}",
        "object": "response",
        "created_at": origin.created,
        "completed_at": origin.created if status == "completed" else None,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if is_cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "model": origin.worker,
        "output": list(items),
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "presence_penalty": body.get("presence_penalty", 0.0),
        "frequency_penalty": body.get("frequency_penalty", 0.0),
        "previous_response_id": None,
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": body.get("service_tier") or "default",
        "store": False,
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_logprobs": body.get("top_logprobs") or 0,
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation") or "disabled",
        "usage": None if usage is None or finish is None else make_usage(usage),
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
    }


def make_usage(usage: Usage) -> dict[str, JsonValue]:
    """Token counts in the wire's names."""
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": read + written,
    }


def _read_items(items: Sequence[JsonValue]) -> Iterator[Message]:
    """Messages of items; calls that stand side by side become one message, as chat completions want them."""
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
                pass  # reasoning of another worker, and what only OpenAI's own service makes
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
        raise InvalidTask(f"{place}.content holds what is no part", param=f"{place}.content")
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
    """Functions, and free-text tools as functions of one text; tools that OpenAI's own service runs are left out."""
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


def _custom_names(asked: Asked) -> frozenset[str]:
    tools = asked.body.get("tools")
    found = tools if isinstance(tools, list) else []
    return frozenset(str(t.get("name")) for t in found if isinstance(t, dict) and t.get("type") == "custom")


def _name_item(prefix: str, origin: Origin, index: int) -> str:
    return f"{prefix}_{origin.decision}_{index}"


def _make_part(text: str) -> dict[str, JsonValue]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _make_message(origin: Origin, index: int, text: str) -> dict[str, JsonValue]:
    return {
        "id": _name_item("msg", origin, index),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [_make_part(text)],
    }


def _make_reasoning(origin: Origin, index: int, text: str) -> dict[str, JsonValue]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"id": _name_item("rs", origin, index), "type": "reasoning", "summary": [], "content": content}


def _make_call(origin: Origin, index: int, call: _Call, custom: frozenset[str]) -> dict[str, JsonValue]:
    item: dict[str, JsonValue] = {
        "id": _name_item("fc", origin, index),
        "type": "function_call",
        "status": "completed",
        "call_id": call.id or _name_item("call", origin, index),
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
