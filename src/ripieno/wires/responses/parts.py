"""Items of OpenAI's responses, to typed messages and back."""

from collections.abc import Iterator, Mapping, Sequence

from ripieno.domain import JsonValue, Message
from ripieno.domain.conversation import (
    Citation,
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
from ripieno.wires.content import FAILED, is_plain_document, make_content, order_results, select_reasoning, tell
from ripieno.wires.responses.compaction import read_summary

WIRE = "responses"
CARRIED = "Summary of the earlier conversation:"
CALLS = ("function_call", "custom_tool_call")
RESULTS = ("function_call_output", "custom_tool_call_output")
_SEALED_TEXT = ("summary_text", "reasoning_text", "text")


def read_items(items: Sequence[JsonValue]) -> Iterator[Message]:
    """Yield the messages of items. What a worker said in one turn, words and calls, becomes one message.

    Raises:
        InvalidTask: an item is of no use; `param` names its place.
    """
    parts: list[Part] = []
    raws: list[JsonValue] = []

    def close() -> Iterator[Message]:
        if raws:
            yield Message(role="assistant", content=make_content(parts), native=Native(WIRE, list(raws)))
        parts.clear()
        raws.clear()

    for index, item in enumerate(items):
        place = f"input[{index}]"
        if not isinstance(item, dict):
            raise InvalidTask(f"{place} must be an object", param=place)
        if (summary := read_summary(item)) is not None:
            yield from close()
            yield Message(role="user", content=f"{CARRIED}\n{summary}")
            continue
        if _is_of_worker(item):
            parts.extend(read_output_item(item, place))
            raws.append(item)
            continue
        yield from close()
        yield _read_other(item, place)
    yield from close()


def _is_of_worker(item: Mapping[str, JsonValue]) -> bool:
    kind = item.get("type") or "message"
    if kind == "message":
        return item.get("role") == "assistant"
    return kind not in RESULTS and kind not in ("item_reference", "mcp_approval_response") and not _is_output(kind)


def _is_output(kind: JsonValue) -> bool:
    return isinstance(kind, str) and kind.endswith("_output")


def read_output_item(item: Mapping[str, JsonValue], place: str = "output") -> list[Part]:
    """Read one item of a worker: a message, reasoning, or a call.

    Raises:
        InvalidTask: the item is of no use.
    """
    kind = text_of(item.get("type")) or "message"
    match kind:
        case "message":
            return _read_content(item.get("content"), place)
        case "reasoning":
            return [_read_reasoning(item)]
        case "function_call":
            return [
                ToolCall(
                    id=text_of(item.get("call_id")) or text_of(item.get("id")),
                    name=text_of(item.get("name")),
                    arguments=text_of(item.get("arguments")) or "{}",
                    namespace=text_of(item.get("namespace")),
                )
            ]
        case "custom_tool_call":
            return [
                ToolCall(
                    id=text_of(item.get("call_id")) or text_of(item.get("id")),
                    name=text_of(item.get("name")),
                    arguments=text_of(item.get("input")),
                    namespace=text_of(item.get("namespace")),
                    is_custom=True,
                )
            ]
        case "image_generation_call" if isinstance(item.get("result"), str):
            form = text_of(item.get("output_format")) or "png"
            return [Media(kind=MediaKind.IMAGE, data=text_of(item["result"]), media_type=f"image/{form}")]
        case _:
            return [ServerTool(wire=WIRE, kind=kind, raw=item)]


def _read_other(item: Mapping[str, JsonValue], place: str) -> Message:
    kind = item.get("type") or "message"
    if kind == "message":
        role = item.get("role")
        if not isinstance(role, str):
            raise InvalidTask(f"{place}.role must be text", param=f"{place}.role")
        content = item.get("content")
        if isinstance(content, str):
            return Message(role=role, content=content)
        return Message(role=role, content=make_content(_read_content(content, place)), native=Native(WIRE, [item]))
    if kind in RESULTS:
        result = ToolResult(
            call=text_of(item.get("call_id")),
            content=_read_output(item.get("output"), place),
            is_custom=kind == RESULTS[1],
        )
        return Message(role="tool", content=(result,), native=Native(WIRE, [item]))
    if kind == "item_reference":
        raise InvalidTask(f"{place}: items are not kept here", param=place, hint="send the item itself")
    part = Opaque(wire=WIRE, kind=str(kind), raw=item)
    return Message(role="user", content=(part,), native=Native(WIRE, [item]))


def _read_content(content: JsonValue, place: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(text=content)]
    if not isinstance(content, list):
        raise InvalidTask(f"{place}.content must be text, or a list of parts", param=f"{place}.content")
    return [_read_part(part, place) for part in content]


def _read_part(part: JsonValue, place: str) -> Part:
    if not isinstance(part, dict):
        raise InvalidTask(f"every item of {place}.content must be an object", param=f"{place}.content")
    kind = text_of(part.get("type"))
    match kind:
        case "input_text" | "output_text" | "text" | "summary_text":
            citations = tuple(_read_citation(each) for each in items_of(part.get("annotations")))
            return Text(text=text_of(part.get("text")), citations=citations)
        case "refusal":
            return Refusal(text=text_of(part.get("refusal")))
        case "input_image":
            return _read_image(part, place)
        case "input_file":
            return _read_file(part)
        case "input_audio":
            audio = fields_of(part.get("input_audio"))
            form = text_of(audio.get("format"))
            return Media(kind=MediaKind.AUDIO, data=text_of(audio.get("data")), media_type=f"audio/{form}")
        case _:
            return Opaque(wire=WIRE, kind=kind, raw=part)


def _read_image(part: Mapping[str, JsonValue], place: str) -> Media:
    url, file, detail = text_of(part.get("image_url")), text_of(part.get("file_id")), text_of(part.get("detail"))
    if not url and not file:
        raise InvalidTask(f"{place}: an image needs image_url or file_id", param=place)
    inline = split_data_url(url)
    if inline is None:
        return Media(kind=MediaKind.IMAGE, url=url, file=file, detail=detail)
    return Media(kind=MediaKind.IMAGE, media_type=inline[0], data=inline[1], detail=detail)


def _read_file(part: Mapping[str, JsonValue]) -> Media:
    data = text_of(part.get("file_data"))
    inline = split_data_url(data)
    media_type, content = inline if inline is not None else ("application/pdf" if data else "", data)
    return Media(
        kind=MediaKind.DOCUMENT,
        url=text_of(part.get("file_url")),
        file=text_of(part.get("file_id")),
        media_type=media_type,
        data=content,
        name=text_of(part.get("filename")),
    )


def _read_citation(raw: Mapping[str, JsonValue]) -> Citation:
    start, end = raw.get("start_index"), raw.get("end_index")
    return Citation(
        url=text_of(raw.get("url")),
        title=text_of(raw.get("title")) or text_of(raw.get("filename")),
        start=start if isinstance(start, int) else None,
        end=end if isinstance(end, int) else None,
    )


def _read_reasoning(item: Mapping[str, JsonValue]) -> Reasoning:
    texts = [*items_of(item.get("content")), *items_of(item.get("summary"))]
    return Reasoning(
        text="\n".join(text_of(part.get("text")) for part in texts if part.get("type") in _SEALED_TEXT),
        sealed=text_of(item.get("encrypted_content")),
        id=text_of(item.get("id")),
    )


def _read_output(output: JsonValue, place: str) -> tuple[Text | Media | Opaque, ...]:
    if isinstance(output, str):
        return (Text(text=output),) if output else ()
    if isinstance(output, list):
        parts = [_read_part(part, place) for part in output if isinstance(part, dict)]
        return tuple(part for part in parts if isinstance(part, Text | Media | Opaque))
    return (Text(text=encode(output).decode()),)


def write_items(messages: Sequence[Message], recipient: Recipient) -> list[JsonValue]:
    """Write messages as the items of a request."""
    items: list[JsonValue] = []
    for message in order_results(messages):
        items.extend(_write_message(message, recipient))
    return items


def _write_message(message: Message, recipient: Recipient) -> list[JsonValue]:
    if isinstance(message.content, str) and message.native is None:
        return [{"role": message.role, "content": message.content}] if message.content else []
    chosen = select_reasoning(message, recipient, wire=WIRE)
    if message.native is not None and message.native.wire == WIRE and chosen is message:
        return list(items_of(message.native.raw))
    if message.role == "tool":
        return [_write_result(part) for part in chosen.parts if isinstance(part, ToolResult)]
    return _write_turn(message.role, chosen.parts)


def _write_turn(role: str, parts: Sequence[Part]) -> list[JsonValue]:
    """Write the items of one message, in order. Adjacent parts of content share one item."""
    items: list[JsonValue] = []
    content: list[JsonValue] = []

    def close() -> None:
        if content:
            items.append({"type": "message", "role": role, "content": list(content)})
            content.clear()

    for part in parts:
        match part:
            case ToolCall() | Reasoning():
                close()
                items.append(write_item(part))
            case ServerTool(wire=wire, raw=raw) if wire == WIRE:
                close()
                items.append(dict(raw))
            case _:
                if (written := write_part(part, role)) is not None:
                    content.append(written)
    close()
    return items


def write_item(part: ToolCall | Reasoning) -> dict[str, JsonValue]:
    """Write a call or reasoning as an item of a request."""
    if isinstance(part, Reasoning):
        summary = [{"type": "summary_text", "text": part.text}] if part.text else []
        item: dict[str, JsonValue] = {"type": "reasoning", "summary": summary}
        if part.id:
            item["id"] = part.id
        return item | ({"encrypted_content": part.sealed} if part.sealed else {})
    named: dict[str, JsonValue] = {"call_id": part.id, "name": part.name}
    if part.namespace:
        named["namespace"] = part.namespace
    if part.is_custom:
        return {"type": "custom_tool_call", **named, "input": part.arguments}
    return {"type": "function_call", **named, "arguments": part.arguments or "{}"}


def write_part(part: Part, role: str) -> dict[str, JsonValue] | None:
    """Write one part of a message's content; None if it says nothing here."""
    match part:
        case Text(text=text):
            return {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        case Refusal(text=text):
            return {"type": "refusal", "refusal": text}
        case Media(kind=MediaKind.IMAGE):
            image: dict[str, JsonValue] = {"type": "input_image", "detail": part.detail or "auto"}
            if part.file:
                return image | {"file_id": part.file}
            return image | {"image_url": part.url or f"data:{part.media_type};base64,{part.data}"}
        case Media(kind=MediaKind.DOCUMENT) if not is_plain_document(part):
            return _write_file(part)
        case Opaque(wire=wire, raw=raw) if wire == WIRE:
            return dict(raw)
        case _:
            told = tell(part)
            return {"type": "output_text" if role == "assistant" else "input_text", "text": told} if told else None


def _write_file(part: Media) -> dict[str, JsonValue]:
    if part.file:
        return {"type": "input_file", "file_id": part.file}
    if part.url:
        return {"type": "input_file", "file_url": part.url}
    data = f"data:{part.media_type};base64,{part.data}"
    return {"type": "input_file", "filename": part.name or "document.pdf", "file_data": data}


def _write_result(result: ToolResult) -> dict[str, JsonValue]:
    output: JsonValue = [written for part in result.content if (written := write_part(part, "user")) is not None]
    if all(isinstance(part, Text) for part in result.content):
        output = result.text
    if result.is_error:
        failed = {"type": "input_text", "text": FAILED.strip()}
        output = tell(result) if isinstance(output, str) else [failed, *items_of(output)]
    return {"type": RESULTS[result.is_custom], "call_id": result.call, "output": output}
