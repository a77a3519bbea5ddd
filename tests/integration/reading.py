"""What clients read from the gateway, in each of its wire formats, by the rules of these formats."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession
from tests.integration.conftest import JSON

DIALECTS = ("chat", "messages", "responses")
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}


async def post(client: ClientSession, url: str, body: object) -> tuple[int, str, dict[str, str]]:
    """Send a body; returns status, text and headers, whose names are in small letters."""
    async with client.post(url, data=json.dumps(body).encode(), headers=JSON) as response:
        return response.status, (await response.read()).decode(), {k.lower(): v for k, v in response.headers.items()}


@dataclass
class Heard:
    """What a client read from an answer."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    finish: str = ""
    usage: tuple[int, int] | None = None
    usages: int = 0
    is_whole: bool = False


def ask(dialect: str, model: str, **fields: object) -> dict[str, object]:
    talk = [{"role": "user", "content": "Where is the key?"}]
    match dialect:
        case "chat":
            return {"model": model, "messages": talk, **fields}
        case "messages":
            return {"model": model, "messages": talk, "max_tokens": 50, **fields}
        case _:
            return {"model": model, "input": talk, **fields}


def read_whole(dialect: str, body: dict[str, Any]) -> Heard:
    return {"chat": read_completion, "messages": read_message, "responses": read_response}[dialect](body)


def read_completion(body: dict[str, Any]) -> Heard:
    choice = body["choices"][0]
    said = Heard(is_whole=True, usages=1, text=choice["message"]["content"] or "", finish=choice["finish_reason"])
    said.reasoning = choice["message"].get("reasoning_content", "")
    for call in choice["message"].get("tool_calls") or ():
        said.calls.append((call["function"]["name"], json.loads(call["function"]["arguments"])))
        said.ids.append(call["id"])
    said.usage = (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])
    return said


def read_message(body: dict[str, Any]) -> Heard:
    said = Heard(is_whole=True, usages=1, finish=body["stop_reason"])
    for block in body["content"]:
        said.text += block.get("text", "")
        said.reasoning += block.get("thinking", "")
        if block["type"] == "tool_use":
            said.calls.append((block["name"], block["input"]))
            said.ids.append(block["id"])
    said.usage = (body["usage"]["input_tokens"], body["usage"]["output_tokens"])
    return said


def read_response(body: dict[str, Any]) -> Heard:
    said = Heard(is_whole=True, usages=1, finish=body["status"])
    for item in body["output"]:
        text = "".join(part["text"] for part in item.get("content") or item.get("summary", ()))
        match item["type"]:
            case "message":
                said.text += text
            case "reasoning":
                said.reasoning += text
            case "function_call":
                said.calls.append((item["name"], json.loads(item["arguments"])))
                said.ids.append(item["call_id"])
    said.usage = (body["usage"]["input_tokens"], body["usage"]["output_tokens"])
    return said


def read_stream(dialect: str, content: str) -> Heard:
    events = [json.loads(data) for data in re.findall(r"^data: (\{.*)$", content, flags=re.MULTILINE)]
    for line in content.splitlines():
        assert not line or line.startswith(("data: ", "event: ", ": ")), line
    match dialect:
        case "chat":
            return read_chunks(events, is_whole=content.endswith("data: [DONE]\n\n"))
        case "messages":
            return read_blocks(events)
        case _:
            last = events[-1]
            assert last["type"] == "response.completed", last
            said = read_whole(dialect, last["response"])
            texts = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
            assert "".join(texts) == said.text
            return said


def read_chunks(events: list[dict[str, Any]], *, is_whole: bool) -> Heard:
    said = Heard(is_whole=is_whole)
    parts: dict[int, list[str]] = {}
    for event in events:
        if event.get("usage"):
            said.usages += 1
            said.usage = (event["usage"]["prompt_tokens"], event["usage"]["completion_tokens"])
        for choice in event["choices"]:
            delta = choice["delta"]
            said.text += delta.get("content") or ""
            said.reasoning += delta.get("reasoning_content") or ""
            said.finish = choice["finish_reason"] or said.finish
            for call in delta.get("tool_calls") or ():
                known = parts.setdefault(call["index"], ["", ""])
                known[0] += call["function"].get("name") or ""
                known[1] += call["function"].get("arguments") or ""
                if call.get("id"):
                    said.ids.append(call["id"])
    said.calls = [(name, json.loads(arguments)) for name, arguments in parts.values()]
    return said


def read_blocks(events: list[dict[str, Any]]) -> Heard:
    said = Heard(is_whole=events[-1]["type"] == "message_stop")
    begun = 0
    for event in events:
        if event["type"] == "message_start":
            begun = event["message"]["usage"]["input_tokens"]
        elif event["type"] == "message_delta":
            said.finish, said.usages = event["delta"]["stop_reason"], 1
            said.usage = (event["usage"].get("input_tokens", begun), event["usage"]["output_tokens"])
    for block, text in join_blocks(events):
        match block["type"]:
            case "tool_use":
                said.calls.append((block["name"], json.loads(text)))
                said.ids.append(block["id"])
            case "text":
                said.text += text
            case "thinking":
                said.reasoning += text
    return said


def join_blocks(events: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """Join the deltas of each block. Each is begun once, filled, and ended before the next one."""
    blocks: dict[int, tuple[dict[str, Any], list[str]]] = {}
    open_block: int | None = None
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert open_block is None
                assert event["index"] not in blocks
                open_block = event["index"]
                blocks[event["index"]] = (event["content_block"], [])
            case "content_block_delta":
                assert open_block == event["index"]
                delta = event["delta"]
                blocks[event["index"]][1].extend(delta.get(name, "") for name in ("text", "partial_json", "thinking"))
            case "content_block_stop":
                assert open_block == event["index"]
                open_block = None
    assert open_block is None
    return [(block, "".join(texts)) for block, texts in blocks.values()]


FINISH = {"chat": "stop", "messages": "end_turn", "responses": "completed"}
FINISH_WITH_CALLS = {"chat": "tool_calls", "messages": "tool_use", "responses": "completed"}
