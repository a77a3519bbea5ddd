"""What all wire formats do to content: order tool results, select reasoning, and describe in words what has no form."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec

from ripieno.domain import Message
from ripieno.domain.conversation import Media, MediaKind, Opaque, Part, Reasoning, ServerTool, Text, ToolResult
from ripieno.wires.base import Recipient

LONGEST_TOLD = 20_000
"""Characters of a foreign part that a worker gets."""
FAILED = "The tool failed: "


def make_content(parts: Sequence[Part]) -> str | tuple[Part, ...]:
    """Return the content of a message: a plain text as a string, and all else as parts."""
    if len(parts) == 1 and isinstance(parts[0], Text) and parts[0] == Text(text=parts[0].text):
        return parts[0].text
    return tuple(parts)


def order_results(messages: Sequence[Message]) -> list[Message]:
    """Move each tool result behind the message with its call: most workers refuse anything between them.

    The order of all else stays. A result without a call stays where it is.
    """
    if not any(message.role == "tool" for message in messages):
        return list(messages)
    callers: dict[str, int] = {}
    behind: dict[int, list[Message]] = {}
    kept: list[tuple[int, Message]] = []
    for place, message in enumerate(messages):
        if message.role == "assistant":
            callers |= {call.id: place for call in message.calls}
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        caller = next((callers[part.call] for part in results if part.call in callers), None)
        if message.role == "tool" and caller is not None:
            behind.setdefault(caller, []).append(message)
        else:
            kept.append((place, message))
    ordered: list[Message] = []
    for place, message in kept:
        ordered.append(message)
        ordered.extend(behind.get(place, ()))
    return ordered


def select_reasoning(message: Message, recipient: Recipient, *, wire: str) -> Message:
    """Leave out the reasoning of other workers.

    Reasoning whose worker is unknown goes to workers of the wire format in which the client sent it.
    """
    if isinstance(message.content, str):
        return message
    is_native = message.native is not None and message.native.wire == wire
    owners = (recipient.worker, "") if is_native else (recipient.worker,)
    kept = tuple(part for part in message.content if not isinstance(part, Reasoning) or part.owner in owners)
    return message if len(kept) == len(message.content) else replace(message, content=kept)


def tell(part: Part) -> str:
    """Tell in words what a wire format has no form for."""
    match part:
        case Text(text=text):
            return text
        case Media():
            return _tell_media(part)
        case ServerTool(kind=kind, raw=raw) | Opaque(kind=kind, raw=raw):
            return f"[{kind}] {msgspec.json.encode(raw).decode()[:LONGEST_TOLD]}"
        case ToolResult():
            return tell_result(part)
        case _:
            return ""


def tell_result(result: ToolResult) -> str:
    """Tell the texts of a tool's result, and whether the tool failed."""
    said = "\n".join(filter(None, map(tell, list_told(result.content))))
    return f"{FAILED}{said}" if result.is_error else said


def list_told(parts: Iterable[Part]) -> list[Part]:
    """List the parts of a result that are described in words: all but media that have a form of their own."""
    return [part for part in parts if not isinstance(part, Media) or is_plain_document(part)]


def is_plain_document(part: Media) -> bool:
    """Return whether a part is a document of plain text."""
    return part.kind is MediaKind.DOCUMENT and part.media_type == "text/plain" and bool(part.data)


def _tell_media(part: Media) -> str:
    if is_plain_document(part):
        return f"{part.name}\n{part.data}" if part.name else part.data
    return f"[{part.kind}: {part.name or part.url[:200] or part.file or part.media_type or 'without a name'}]"
