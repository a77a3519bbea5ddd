"""Contents of Google's Gemini, to typed parts and back."""

from collections.abc import Mapping, Sequence

import msgspec

from ripieno.domain import JsonValue, Message
from ripieno.domain.conversation import (
    Media,
    MediaKind,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    ServerTool,
    Text,
    ToolCall,
    ToolResult,
)
from ripieno.wires.base import Recipient, encode, fields_of, items_of, text_of
from ripieno.wires.content import is_plain_document, list_told, order_results, select_reasoning, tell

WIRE = "gemini"
_SYSTEM_ROLES = ("system", "developer")
_KINDS = {"image": MediaKind.IMAGE, "audio": MediaKind.AUDIO, "video": MediaKind.VIDEO}
SERVED = ("executableCode", "codeExecutionResult")
SKIP_SIGNATURE = "skip_thought_signature_validator"
"""Google's documented stand-in for the seal of a call that another vendor's model made."""


def read_part(part: Mapping[str, JsonValue], nth: int) -> Part | None:
    """Read one part of a reply; None if it is empty.

    Args:
        part: the part.
        nth: number of calls before it, for the id of a call that has none.
    """
    signature = text_of(part.get("thoughtSignature"))
    if part.get("thought") is True:
        return Reasoning(text=text_of(part.get("text")), signature=signature)
    if isinstance(part.get("text"), str):
        return Text(text=text_of(part["text"])) if part["text"] else None
    if isinstance(part.get("functionCall"), dict):
        call = fields_of(part["functionCall"])
        return ToolCall(
            id=text_of(call.get("id")) or f"call_{nth}",
            name=text_of(call.get("name")),
            arguments=encode(call.get("args") or {}).decode(),
            signature=signature,
        )
    if isinstance(part.get("inlineData"), dict):
        inline = fields_of(part["inlineData"])
        media_type = text_of(inline.get("mimeType"))
        kind = _KINDS.get(media_type.partition("/")[0], MediaKind.DOCUMENT)
        return Media(kind=kind, data=text_of(inline.get("data")), media_type=media_type)
    served = next((name for name in SERVED if name in part), None)
    if served is not None:
        return ServerTool(wire=WIRE, kind=served, raw=part)
    return Opaque(wire=WIRE, kind=next(iter(part), "empty"), raw=part) if part else None


def write_system(messages: Sequence[Message]) -> JsonValue:
    """Write the system messages; None if there is none."""
    told = [message.text for message in messages if message.role in _SYSTEM_ROLES and message.text]
    return {"parts": [{"text": text} for text in told]} if told else None


def write_contents(messages: Sequence[Message], recipient: Recipient) -> list[JsonValue]:
    """Write all other messages. Messages of one role that follow each other become one."""
    names: dict[str, str] = {call.id: call.name for message in messages for call in message.calls}
    written: list[dict[str, JsonValue]] = []
    for message in order_results(messages):
        if message.role in _SYSTEM_ROLES:
            continue
        role = "model" if message.role == "assistant" else "user"
        chosen = select_reasoning(message, recipient, wire=WIRE)
        parts = [made for part in chosen.parts for made in _write_part(part, names)]
        if not parts:
            continue
        if written and written[-1]["role"] == role:
            written[-1]["parts"] = [*items_of(written[-1]["parts"]), *parts]
        else:
            written.append({"role": role, "parts": parts})
    return list(written)


def _write_part(part: Part, names: Mapping[str, str]) -> list[dict[str, JsonValue]]:
    match part:
        case Text(text=text) | Refusal(text=text):
            return [{"text": text}] if text else []
        case Reasoning(text=text, signature=signature):
            seal: dict[str, JsonValue] = {"thoughtSignature": signature} if signature else {}
            return [{"text": text, "thought": True} | seal] if text else []
        case ToolCall():
            return [_write_call(part)]
        case ToolResult():
            return _write_result(part, names)
        case Media() if not is_plain_document(part):
            return [_write_media(part)]
        case ServerTool(wire=wire, raw=raw) | Opaque(wire=wire, raw=raw) if wire == WIRE:
            return [dict(raw)]
        case _:
            told = tell(part)
            return [{"text": told}] if told else []


def _write_call(call: ToolCall) -> dict[str, JsonValue]:
    try:
        found: JsonValue = {"input": call.arguments} if call.is_custom else msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        found = {"_raw": call.arguments}
    arguments = found if isinstance(found, dict) else {"_raw": call.arguments}
    named = {"id": call.id, "name": f"{call.namespace}{call.name}", "args": arguments}
    return {"functionCall": named, "thoughtSignature": call.signature or SKIP_SIGNATURE}


def _write_result(result: ToolResult, names: Mapping[str, str]) -> list[dict[str, JsonValue]]:
    """Write a tool's result, and its media as parts behind it."""
    said = "\n".join(filter(None, map(tell, list_told(result.content))))
    response: dict[str, JsonValue] = {"error" if result.is_error else "output": said}
    named = {"id": result.call, "name": names.get(result.call, "unknown"), "response": response}
    media = [p for p in result.content if isinstance(p, Media) and not is_plain_document(p)]
    return [{"functionResponse": named}, *map(_write_media, media)]


def _write_media(part: Media) -> dict[str, JsonValue]:
    if part.data:
        return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
    kinds = {MediaKind.IMAGE: "image/*", MediaKind.AUDIO: "audio/*", MediaKind.VIDEO: "video/*"}
    media_type = part.media_type or kinds.get(part.kind, "application/pdf")
    return {"fileData": {"mimeType": media_type, "fileUri": part.url or part.file}}
