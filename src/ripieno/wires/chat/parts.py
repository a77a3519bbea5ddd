"""Messages of chat completions, to typed messages and back."""

from collections.abc import Mapping, Sequence

from ripieno.domain import JsonValue, Message
from ripieno.domain.conversation import (
    Media,
    MediaKind,
    Native,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    ServerTool,
    Text,
    ToolCall,
    ToolResult,
)
from ripieno.errors import InvalidTask
from ripieno.wires.base import Recipient, encode, fields_of, items_of, split_data_url, text_of
from ripieno.wires.content import (
    is_plain_document,
    list_told,
    make_content,
    order_results,
    select_reasoning,
    tell,
    tell_result,
)

WIRE = "chat"
THINKING = ("reasoning_content", "reasoning")
"""Names under which servers send reasoning text."""
_THOUGHTS = (*THINKING, "reasoning_details")
_READ = frozenset({"role", "content", "tool_calls", "tool_call_id", "refusal", *THINKING})


def read_message(raw: JsonValue, index: int) -> Message:
    """Read one message of a request.

    Raises:
        InvalidTask: it is no message; `param` names its place.
    """
    place = f"messages[{index}]"
    if not isinstance(raw, dict):
        raise InvalidTask(f"{place} must be an object", param=place)
    role, content = raw.get("role"), raw.get("content")
    if not isinstance(role, str):
        raise InvalidTask(f"{place}.role must be text", param=f"{place}.role")
    if len(raw) == 2 and isinstance(content, str) and role != "tool":
        return Message(role=role, content=content)
    if content is not None and not isinstance(content, str | list):
        raise InvalidTask(f"{place}.content must be text, a list of parts, or null", param=f"{place}.content")
    parts = read_parts(raw)
    if role == "tool":
        leaves = tuple(part for part in parts if isinstance(part, Text | Media | Opaque))
        parts = [ToolResult(call=text_of(raw.get("tool_call_id")), content=leaves)]
    extra = {name: value for name, value in raw.items() if name not in _READ}
    return Message(role=role, content=make_content(parts), extra=extra, native=Native(WIRE, raw))


def read_parts(raw: Mapping[str, JsonValue]) -> list[Part]:
    """Read the parts of a message: reasoning, content, refusal and tool calls, in this order."""
    parts: list[Part] = []
    if (thought := read_reasoning(raw)) is not None:
        parts.append(Reasoning(text=thought))
    content = raw.get("content")
    if isinstance(content, str):
        if content:
            parts.append(Text(text=content))
    else:
        for item in content if isinstance(content, list) else ():
            parts.extend(_read_part(item) if isinstance(item, dict) else [Text(text=str(item))])
    if refusal := text_of(raw.get("refusal")):
        parts.append(Refusal(text=refusal))
    parts.extend(read_call(call, nth) for nth, call in enumerate(items_of(raw.get("tool_calls"))))
    return parts


def read_reasoning(fields: Mapping[str, JsonValue]) -> str | None:
    """Return the reasoning text in a message or in a streamed delta; None if there is none."""
    for name in THINKING:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _read_part(item: Mapping[str, JsonValue]) -> list[Part]:
    kind = text_of(item.get("type")) or ("text" if "text" in item else "")
    cache = read_cache(item.get("cache_control"))
    match kind:
        case "text" | "input_text" | "output_text":
            return [Text(text=text_of(item.get("text")), cache=cache)]
        case "image_url":
            return [_read_image(item.get("image_url"), cache)]
        case "input_audio":
            audio = fields_of(item.get("input_audio"))
            form = text_of(audio.get("format"))
            return [Media(kind=MediaKind.AUDIO, data=text_of(audio.get("data")), media_type=f"audio/{form}")]
        case "file":
            return [_read_file(fields_of(item.get("file")))]
        case "refusal":
            return [Refusal(text=text_of(item.get("refusal")))]
        case "thinking" | "reasoning":
            return [Reasoning(text=_read_thinking(item))]
        case _:
            return [Opaque(wire=WIRE, kind=kind, raw=item)]


def _read_thinking(item: Mapping[str, JsonValue]) -> str:
    """Return the text of a thinking part: a text, or a list of text parts, as Mistral sends it."""
    found = item.get("thinking", item.get("text"))
    return found if isinstance(found, str) else "".join(text_of(part.get("text")) for part in items_of(found))


def _read_image(value: JsonValue, cache: str) -> Media:
    image = value if isinstance(value, dict) else {"url": value}
    url, detail = text_of(image.get("url")), text_of(image.get("detail"))
    inline = split_data_url(url)
    if inline is None:
        return Media(kind=MediaKind.IMAGE, url=url, detail=detail, cache=cache)
    return Media(kind=MediaKind.IMAGE, media_type=inline[0], data=inline[1], detail=detail, cache=cache)


def _read_file(file: Mapping[str, JsonValue]) -> Media:
    data, name = text_of(file.get("file_data")), text_of(file.get("filename"))
    inline = split_data_url(data)
    kind, content = inline if inline is not None else ("application/pdf" if data else "", data)
    return Media(kind=MediaKind.DOCUMENT, media_type=kind, data=content, name=name, file=text_of(file.get("file_id")))


def read_call(call: Mapping[str, JsonValue], nth: int) -> ToolCall:
    """Read one whole tool call. A missing id is made of the call's place."""
    custom, function = call.get("custom"), fields_of(call.get("function"))
    if isinstance(custom, Mapping):
        return ToolCall(
            id=text_of(call.get("id")) or f"call_{nth}",
            name=text_of(custom.get("name")),
            arguments=text_of(custom.get("input")),
            is_custom=True,
        )
    return ToolCall(
        id=text_of(call.get("id")) or f"call_{nth}",
        name=text_of(function.get("name")),
        arguments=read_arguments(function.get("arguments")) or "{}",
    )


def read_arguments(value: JsonValue) -> str:
    """Return arguments as JSON text. Some servers send an object."""
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()


def read_cache(value: JsonValue) -> str:
    """Return the lifetime of a cache mark; empty if there is none."""
    if not isinstance(value, Mapping):
        return ""
    return text_of(value.get("ttl")) or "5m"


def write_messages(messages: Sequence[Message], recipient: Recipient) -> list[dict[str, JsonValue]]:
    """Write messages for a worker.

    Media in tool results become parts of a user message behind the results, because a tool's message holds text only.
    """
    written: list[dict[str, JsonValue]] = []
    media: list[Media] = []
    for message in order_results(messages):
        if media and message.role != "tool":
            written.append(_show_media(media))
            media = []
        written.extend(_write_message(message, recipient, media))
    if media:
        written.append(_show_media(media))
    return written


def _write_message(message: Message, recipient: Recipient, media: list[Media]) -> list[dict[str, JsonValue]]:
    role = "system" if message.role == "developer" and not recipient.has_developer_role else message.role
    if isinstance(message.content, str) and message.native is None:
        return [{"role": role, "content": message.content, **message.extra}]
    chosen = select_reasoning(message, recipient, wire=WIRE)
    if message.native is not None and message.native.wire == WIRE:
        raw = dict(fields_of(message.native.raw)) | {"role": role}
        return [raw if chosen is message else {name: raw[name] for name in raw if name not in _THOUGHTS}]
    if role == "tool":
        return [_write_result(part, media) for part in chosen.parts if isinstance(part, ToolResult)]
    return [_write_parts(role, chosen)]


def _write_result(result: ToolResult, media: list[Media]) -> dict[str, JsonValue]:
    shown = [part for part in result.content if isinstance(part, Media) and not is_plain_document(part)]
    media.extend(shown)
    said = tell_result(result)
    if shown and not list_told(result.content):
        said += "See the next message."
    return {"role": "tool", "tool_call_id": result.call, "content": said}


def _show_media(media: Sequence[Media]) -> dict[str, JsonValue]:
    intro = {"type": "text", "text": "What the tool returned:"}
    return {"role": "user", "content": [intro, *filter(None, map(write_part, media))]}


def _write_parts(role: str, message: Message) -> dict[str, JsonValue]:
    written: dict[str, JsonValue] = {"role": role}
    parts = [part for part in message.parts if not isinstance(part, ToolCall | Reasoning)]
    if all(isinstance(part, Text) for part in parts) and (role != "user" or len(parts) == 1):
        written["content"] = "".join(tell(part) for part in parts) or (None if message.calls else "")
    else:
        written["content"] = list(filter(None, map(write_part, parts)))
    thought = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    if thought:
        written["reasoning_content"] = thought
    if message.calls:
        written["tool_calls"] = [write_call(call) for call in message.calls]
    return written | dict(message.extra)


def write_part(part: Part) -> dict[str, JsonValue] | None:
    """Write one part of a message's content; None if it has no form here."""
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Media(kind=MediaKind.IMAGE):
            image: dict[str, JsonValue] = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
            if part.detail:
                image["detail"] = part.detail
            return {"type": "image_url", "image_url": image}
        case Media(kind=MediaKind.AUDIO):
            form = part.media_type.partition("/")[2]
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": form}}
        case Media(kind=MediaKind.DOCUMENT) if (part.data or part.file) and not is_plain_document(part):
            return {"type": "file", "file": _write_file(part)}
        case Refusal(text=text):
            return {"type": "text", "text": text}
        case Opaque(wire=wire, raw=raw) if wire == WIRE:
            return dict(raw)
        case Media() | ServerTool() | Opaque():
            return {"type": "text", "text": tell(part)}
        case _:
            return None


def _write_file(part: Media) -> dict[str, JsonValue]:
    file: dict[str, JsonValue] = {"filename": part.name or "document"}
    if part.file:
        return {"file_id": part.file}
    return file | {"file_data": f"data:{part.media_type};base64,{part.data}"}


def write_call(call: ToolCall) -> dict[str, JsonValue]:
    """Write one whole tool call. The free text of a custom tool becomes a function's one argument."""
    arguments = encode({"input": call.arguments}).decode() if call.is_custom else call.arguments or "{}"
    return {"id": call.id, "type": "function", "function": {"name": name_call(call), "arguments": arguments}}


def name_call(call: ToolCall) -> str:
    """Return the name of a tool with its group, as one name."""
    return f"{call.namespace}{call.name}"
