"""Workers of each wire format, written by hand from the vendors' documentation."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ripieno.testing import ReceivedRequest, Reply

PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjQ="
SIGNATURE = "c2lnbmVkIGJ5IHRoZSB2ZW5kb3I="


@dataclass(frozen=True)
class Said:
    """What a worker says, in any format."""

    text: str = ""
    reasoning: str = ""
    signature: str = ""
    calls: Sequence[tuple[str, str, dict[str, Any]]] = ()
    """Id, name and arguments."""
    finish: str = "stop"


def reply_chat(said: Said, *, is_stream: bool) -> Reply:
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.calls:
        message["tool_calls"] = [
            {"id": name, "type": "function", "function": {"name": tool, "arguments": json.dumps(given)}}
            for name, tool, given in said.calls
        ]
    finish = "tool_calls" if said.calls else said.finish
    usage = {
        "prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37, "prompt_tokens_details": {"cached_tokens": 10}
    }  # fmt: skip
    head: dict[str, Any] = {"id": "c1", "created": 1, "model": "m"}
    if not is_stream:
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return _whole({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": part} for part in _halves(said.reasoning)]
    deltas += [{"content": part} for part in _halves(said.text)]
    events = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    for nth, call in enumerate(message.get("tool_calls", ())):
        begun, rest = _halves(call["function"]["arguments"])
        first = {"index": nth, **call, "function": {"name": call["function"]["name"], "arguments": begun}}
        for part in (first, {"index": nth, "function": {"arguments": rest}}):
            events.append({**head, "choices": [{"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None}]})
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    events.append({**head, "choices": [], "usage": usage})
    return _stream([("", event) for event in events], end=b"data: [DONE]\n\n")


def reply_messages(said: Said, *, is_stream: bool) -> Reply:
    blocks: list[dict[str, Any]] = []
    if said.reasoning:
        blocks.append({"type": "thinking", "thinking": said.reasoning, "signature": said.signature})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    blocks += [{"type": "tool_use", "id": name, "name": tool, "input": given} for name, tool, given in said.calls]
    stops = {"stop": "end_turn", "length": "max_tokens"}
    stop = "tool_use" if said.calls else stops[said.finish]
    usage = {
        "input_tokens": 20, "output_tokens": 7, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 0
    }  # fmt: skip
    shell = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": blocks}
    if not is_stream:
        return _whole({**shell, "stop_reason": stop, "stop_sequence": None, "usage": usage})
    begun = {**shell, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        empty, deltas = _open_block(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": stop, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}})
    events.append({"type": "message_stop"})
    return _stream([(event["type"], event) for event in events])


def _open_block(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    match block["type"]:
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": part} for part in _halves(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return {**block, "thinking": "", "signature": ""}, deltas
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": part} for part in _halves(block["text"])]
        case _:
            parts = _halves(json.dumps(block["input"]))
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]


def reply_responses(said: Said, *, is_stream: bool) -> Reply:
    items: list[dict[str, Any]] = []
    if said.reasoning:
        summary = [{"type": "summary_text", "text": said.reasoning}]
        items.append({"id": "rs_1", "type": "reasoning", "summary": summary, "encrypted_content": said.signature})
    if said.text:
        part = {"type": "output_text", "text": said.text, "annotations": []}
        items.append({"id": "m_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]})
    items += [
        {"id": f"fc_{name}", "type": "function_call", "call_id": name, "name": tool, "arguments": json.dumps(given)}
        for name, tool, given in said.calls
    ]
    usage = {
        "input_tokens": 30, "input_tokens_details": {"cached_tokens": 10}, "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 37,
    }  # fmt: skip
    is_cut = said.finish == "length"
    response = {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "output": items, "usage": usage,
        "status": "incomplete" if is_cut else "completed", "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
    }  # fmt: skip
    if not is_stream:
        return _whole(response)
    shell = {**response, "output": [], "status": "in_progress", "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": shell}]
    for index, item in enumerate(items):
        place = {"output_index": index, "item_id": item["id"]}
        empty: dict[str, object] = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
        events.append({"type": "response.output_item.added", "output_index": index, "item": item | empty})
        match item["type"]:
            case "reasoning":
                kind, text = "response.reasoning_summary_text.delta", said.reasoning
            case "message":
                kind, text = "response.output_text.delta", said.text
            case _:
                kind, text = "response.function_call_arguments.delta", item["arguments"]
        part = {"type": "output_text", "text": "", "annotations": []}
        if item["type"] == "message":
            events.append({"type": "response.content_part.added", **place, "content_index": 0, "part": part})
        events += [{"type": kind, **place, "content_index": 0, "delta": part} for part in _halves(text)]
        if item["type"] == "message":
            events.append({"type": "response.output_text.done", **place, "content_index": 0, "text": text})
            whole = {**part, "text": text}
            events.append({"type": "response.content_part.done", **place, "content_index": 0, "part": whole})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{response['status']}", "response": response})
    numbered = [(event["type"], {**event, "sequence_number": nth}) for nth, event in enumerate(events)]
    return _stream(numbered)


def reply_gemini(said: Said, *, is_stream: bool) -> Reply:
    parts: list[dict[str, Any]] = []
    if said.reasoning:
        parts.append({"text": said.reasoning, "thought": True})
    if said.text:
        parts.append({"text": said.text})
    parts += [
        {"functionCall": {"id": name, "name": tool, "args": given}, "thoughtSignature": SIGNATURE}
        for name, tool, given in said.calls
    ]
    usage = {"promptTokenCount": 30, "candidatesTokenCount": 7, "totalTokenCount": 37, "cachedContentTokenCount": 10}
    reason = "MAX_TOKENS" if said.finish == "length" else "STOP"
    if not is_stream:
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": reason, "index": 0}
        return _whole({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"})
    events: list[tuple[str, dict[str, Any]]] = []
    for nth, part in enumerate(parts):
        candidate = {"content": {"role": "model", "parts": [part]}, "index": 0}
        if nth == len(parts) - 1:
            candidate["finishReason"] = reason
        events.append(("", {"candidates": [candidate], "usageMetadata": usage}))
    return _stream(events)


REPLIES: Mapping[str, Callable[..., Reply]] = {
    "chat": reply_chat,
    "messages": reply_messages,
    "responses": reply_responses,
    "gemini": reply_gemini,
}
KINDS = {"chat": "openai", "messages": "anthropic", "responses": "openai-responses", "gemini": "gemini"}
"""Kinds of providers, by wire format."""


def follow(script: Callable[[ReceivedRequest], Said], wire: str) -> Callable[[ReceivedRequest], Reply]:
    """Make a server's script of what a worker says to a request."""

    def answer(request: ReceivedRequest) -> Reply:
        is_stream = request.body.get("stream") is True or ":stream" in request.path
        return REPLIES[wire](script(request), is_stream=is_stream)

    return answer


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [text[:middle], text[middle:]] if text else []


def _whole(body: object) -> Reply:
    return Reply(raw=json.dumps(body).encode())


def _stream(events: Sequence[tuple[str, object]], *, end: bytes = b"") -> Reply:
    lines = [f"event: {name}\n" if name else "" for name, _ in events]
    packed = "".join(f"{line}data: {json.dumps(event)}\n\n" for line, (_, event) in zip(lines, events, strict=True))
    return Reply(raw=packed.encode() + end, content_type="text/event-stream")
