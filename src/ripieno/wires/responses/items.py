"""Response objects and their items, towards clients of OpenAI's responses."""

from collections.abc import Mapping, Sequence

import msgspec

from ripieno.domain import JsonValue, Usage
from ripieno.domain.conversation import Citation, Media, Part, Reasoning, Refusal, ServerTool, Text, ToolCall
from ripieno.wires.base import ParsedRequest, ResponseSource, items_of, text_of
from ripieno.wires.content import tell
from ripieno.wires.responses.parts import WIRE
from ripieno.wires.usage import make_responses_usage


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
    if "tools" in given:
        given["tools"] = [_complete_tool(tool) for tool in items_of(given["tools"])]
    return {
        **_SETTINGS,
        **given,
        "id": name_response(source),
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
        **parsed.echo,
    }


def _complete_tool(tool: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return a tool with all fields that a response has of it."""
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": None, **tool}


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


def name_response(source: ResponseSource) -> str:
    """Name a response by its decision."""
    return f"resp_{source.decision}"


def name_item(prefix: str, source: ResponseSource, index: int) -> str:
    """Name an item of a response by its kind and place."""
    return f"{prefix}_{source.decision}_{index}"


def make_part(part: Text | Refusal) -> dict[str, JsonValue]:
    """Make a part of a message's content."""
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    annotations = [_make_annotation(cited, part.text) for cited in part.citations if cited.url]
    return {"type": "output_text", "text": part.text, "annotations": annotations, "logprobs": []}


def _make_annotation(cited: Citation, text: str) -> JsonValue:
    end = len(text) if cited.end is None else cited.end
    named = {"url": cited.url, "title": cited.title}
    return {"type": "url_citation", **named, "start_index": cited.start or 0, "end_index": end}


def make_message(source: ResponseSource, index: int, content: Sequence[JsonValue]) -> dict[str, JsonValue]:
    """Make the item of a message."""
    return {
        "id": name_item("msg", source, index),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": list(content),
    }


def make_reasoning(source: ResponseSource, index: int, part: Reasoning) -> dict[str, JsonValue]:
    """Make the item of reasoning."""
    content = [{"type": "reasoning_text", "text": part.text}] if part.text else []
    item: dict[str, JsonValue] = {"id": part.id or name_item("rs", source, index), "type": "reasoning", "summary": []}
    return item | {"content": content} | ({"encrypted_content": part.sealed} if part.sealed else {})


def make_item(source: ResponseSource, index: int, part: Part, names: ToolNames) -> dict[str, JsonValue]:
    """Make the item of a whole part that is no text."""
    match part:
        case Reasoning():
            return make_reasoning(source, index, part)
        case ToolCall():
            group, name, is_custom = names.find(f"{part.namespace}{part.name}")
            return make_call(
                source, index, msgspec.structs.replace(part, name=name, namespace=group, is_custom=is_custom)
            )
        case ServerTool(wire=wire, raw=raw) if wire == WIRE:
            return dict(raw)
        case Media(data=data) if data:
            return {
                "id": name_item("ig", source, index),
                "type": "image_generation_call",
                "status": "completed",
                "result": data,
            }
        case _:
            return make_message(source, index, [make_part(Text(text=tell(part)))])


def make_call(source: ResponseSource, index: int, call: ToolCall) -> dict[str, JsonValue]:
    """Make the item of a tool call."""
    item: dict[str, JsonValue] = {
        "id": name_item("fc", source, index),
        "type": "custom_tool_call" if call.is_custom else "function_call",
        "status": "completed",
        "call_id": call.id or name_item("call", source, index),
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
