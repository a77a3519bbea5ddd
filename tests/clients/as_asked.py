"""A scripted worker that calls the tool that a message names, and fills the schema that a request states."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import cast

from ripieno.testing.scripted import ReceivedRequest, Reply

Schema = Mapping[str, object]


def answer_as_asked(request: ReceivedRequest) -> Reply:
    """Answer a chat-completions request; pass it to `ScriptedServer` as its script.

    A tool is called where it is forced, or where the last message names it and no tool has answered yet; what a schema
    asks for is filled with the numbers and words of that message; everything else is told back.
    """
    messages = cast(list[dict[str, object]], request.body.get("messages", []))
    asked = _text_of(messages[-1])
    if messages[-1].get("role") == "tool":
        return Reply(text=f"The tool says: {asked}")
    tools = [tool["function"] for tool in cast(list[dict[str, dict[str, object]]], request.body.get("tools") or [])]
    called = _choose_tools(tools, request.body.get("tool_choice"), asked)
    if called:
        calls = [
            {
                "id": f"call_{len(messages)}_{index}",
                "type": "function",
                "function": {"name": tool["name"], "arguments": json.dumps(fill(_parameters(tool), asked))},
            }
            for index, tool in enumerate(called)
        ]
        return Reply(text="", message={"tool_calls": calls}, finish_reason="tool_calls")
    form = cast(dict[str, object], request.body.get("response_format") or {})
    if form.get("type") == "json_schema":
        schema = cast(dict[str, Schema], form["json_schema"])["schema"]
        return Reply(text=json.dumps(fill(schema, asked)))
    if form.get("type") == "json_object":
        return Reply(text=json.dumps(dict.fromkeys(re.findall(r"['`\"](\w+)['`\"]", asked) or ["said"], asked)))
    return Reply(text=f"You said: {asked}"[:2000])


def fill(schema: Schema, text: str) -> object:
    """A value that fits a JSON schema, made of the numbers and words of a text."""
    return _fill(schema, schema, _numbers(text), text)


def _fill(schema: Schema, root: Schema, numbers: Iterator[float], text: str) -> object:
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        places = cast(dict[str, Schema], root.get("$defs") or root.get("definitions") or {})
        return _fill(places[name], root, numbers, text)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return cast(list[object], schema["enum"])[0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return _fill(cast(list[Schema], schema[name])[0], root, numbers, text)
    if schema.get("type") == "array":
        return [_fill(cast(Schema, schema.get("items") or {}), root, numbers, text)]
    if schema.get("type") == "object":
        properties = cast(dict[str, Schema], schema.get("properties") or {})
        return {name: _fill(part, root, numbers, text) for name, part in properties.items()}
    return _fill_plain(str(schema.get("type")), numbers, text)


def _fill_plain(kind: str, numbers: Iterator[float], text: str) -> object:
    match kind:
        case "integer":
            return int(next(numbers))
        case "number":
            return next(numbers)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return " ".join(text.split())[:60] or "something"


def _choose_tools(tools: list[dict[str, object]], choice: object, asked: str) -> list[dict[str, object]]:
    if isinstance(choice, dict):
        name = choice.get("function", {}).get("name")
        return [tool for tool in tools if tool["name"] == name]
    if choice == "none":
        return []
    named = [tool for tool in tools if any(word in asked.lower() for word in _words(str(tool["name"])))]
    return named or (tools[:1] if choice in ("required", "any") else [])


def _words(name: str) -> list[str]:
    """The name, and the words that it is made of, but for short ones."""
    return [name.lower(), *(word for word in name.lower().split("_") if len(word) >= 5)]


def _parameters(tool: Mapping[str, object]) -> Schema:
    return cast(Schema, tool.get("parameters") or {"type": "object"})


def _numbers(text: str) -> Iterator[float]:
    yield from (float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", text))
    while True:
        yield 1.0


def _text_of(message: Mapping[str, object]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
