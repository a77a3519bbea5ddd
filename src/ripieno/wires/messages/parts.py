"""Blocks of Anthropic's messages, to typed parts and back."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

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
from ripieno.wires.base import Recipient, encode, fields_of, items_of, text_of
from ripieno.wires.chat.parts import read_cache
from ripieno.wires.content import make_content, order_results, select_reasoning, tell

WIRE = "messages"
SERVED = ("server_tool_use", "mcp_tool_use")
"""Blocks of tools that Anthropic itself runs; their results end with `_tool_result`."""
_SYSTEM_ROLES = ("system", "developer")


def read_message(raw: JsonValue, place: str) -> Iterator[Message]:
    """Read one message. Tool results become messages of their own.

    Raises:
        InvalidTask: it is no message; `param` names its place.
    """
    if not isinstance(raw, dict):
        raise InvalidTask(f"{place} must be an object", param=place)
    role, content = raw.get("role"), raw.get("content")
    if role not in ("user", "assistant", "system"):
        raise InvalidTask(f"{place}.role must be 'user' or 'assistant'", param=f"{place}.role")
    if isinstance(content, str):
        yield Message(role=role, content=content)
        return
    if not isinstance(content, list):
        raise InvalidTask(f"{place}.content must be text, or a list of blocks", param=f"{place}.content")
    if not all(isinstance(block, dict) for block in content):
        raise InvalidTask(f"every item of {place}.content must be an object", param=f"{place}.content")
    if role == "assistant":
        yield Message(role=role, content=make_content(read_blocks(content)), native=Native(WIRE, raw))
        return
    results = [block for block in content if block.get("type") == "tool_result"]
    others = [block for block in content if block.get("type") != "tool_result"]
    for block in results:
        yield Message(role="tool", content=tuple(read_blocks([block])), native=Native(WIRE, block))
    if others:
        native = Native(WIRE, raw | {"content": others})
        yield Message(role=role, content=make_content(read_blocks(others)), native=native)


def read_blocks(blocks: Sequence[Mapping[str, JsonValue]]) -> list[Part]:
    """Read the blocks of a message or a reply.

    Raises:
        InvalidTask: a block of a known type lacks what makes it one.
    """
    return [_read_block(block) for block in blocks]


def _read_block(block: Mapping[str, JsonValue]) -> Part:
    kind, cache = text_of(block.get("type")), read_cache(block.get("cache_control"))
    match kind:
        case "text":
            citations = tuple(_read_citation(each) for each in items_of(block.get("citations")))
            return Text(text=_require_text(block), cache=cache, citations=citations)
        case "thinking":
            return Reasoning(text=text_of(block.get("thinking")), signature=text_of(block.get("signature")))
        case "redacted_thinking":
            return Reasoning(sealed=text_of(block.get("data")))
        case "tool_use":
            arguments = encode(block.get("input") or {}).decode()
            return ToolCall(
                id=text_of(block.get("id")), name=text_of(block.get("name")), arguments=arguments, cache=cache
            )
        case "tool_result":
            return _read_result(block, cache)
        case "image":
            return _read_media(MediaKind.IMAGE, block, cache)
        case "document":
            return _read_media(MediaKind.DOCUMENT, block, cache)
        case "search_result":
            return _read_search_result(block, cache)
        case _ if kind in SERVED or kind.endswith("_tool_result"):
            return ServerTool(wire=WIRE, kind=kind, raw=block)
        case _:
            return Opaque(wire=WIRE, kind=kind, raw=block)


def _read_result(block: Mapping[str, JsonValue], cache: str) -> ToolResult:
    content = block.get("content")
    parts: list[Part] = []
    if isinstance(content, str):
        parts = [Text(text=content)] if content else []
    elif isinstance(content, list):
        parts = [_read_block(part) if isinstance(part, dict) else Text(text=str(part)) for part in content]
    elif content is not None:
        parts = [Text(text=encode(content).decode())]
    return ToolResult(
        call=text_of(block.get("tool_use_id")),
        content=tuple(part for part in parts if isinstance(part, Text | Media | Opaque)),
        is_error=block.get("is_error") is True,
        cache=cache,
    )


def _read_media(kind: MediaKind, block: Mapping[str, JsonValue], cache: str) -> Part:
    source, name = fields_of(block.get("source")), text_of(block.get("title"))
    match source.get("type"):
        case "base64" | "text" if isinstance(source.get("data"), str):
            media_type = text_of(source.get("media_type")) or "text/plain"
            return Media(kind=kind, data=text_of(source["data"]), media_type=media_type, name=name, cache=cache)
        case "url" if isinstance(source.get("url"), str):
            return Media(kind=kind, url=text_of(source["url"]), name=name, cache=cache)
        case "file" if isinstance(source.get("file_id"), str):
            return Media(kind=kind, file=text_of(source["file_id"]), name=name, cache=cache)
        case "content" if kind is MediaKind.DOCUMENT:
            text = _join_texts(source.get("content"))
            return Media(kind=kind, data=text, media_type="text/plain", name=name, cache=cache)
        case _ if kind is MediaKind.IMAGE:
            raise InvalidTask("an image's source must be base64, a url or a file", param="messages")
        case _:
            raise InvalidTask("a document's source must be base64, text, content, a url or a file", param="messages")


def _read_search_result(block: Mapping[str, JsonValue], cache: str) -> Media:
    """Read a search result as a document of plain text, whose name is its title and source."""
    title, source = text_of(block.get("title")), text_of(block.get("source"))
    name = f"{title} ({source})" if title and source else title or source
    text = _join_texts(block.get("content"))
    return Media(kind=MediaKind.DOCUMENT, data=text, media_type="text/plain", name=name, cache=cache)


def _join_texts(content: JsonValue) -> str:
    return content if isinstance(content, str) else "\n".join(text_of(b.get("text")) for b in items_of(content))


def _read_citation(raw: Mapping[str, JsonValue]) -> Citation:
    start, end = raw.get("start_char_index"), raw.get("end_char_index")
    return Citation(
        url=text_of(raw.get("url")),
        title=text_of(raw.get("title")) or text_of(raw.get("document_title")),
        quote=text_of(raw.get("cited_text")),
        start=start if isinstance(start, int) else None,
        end=end if isinstance(end, int) else None,
    )


def _require_text(block: Mapping[str, JsonValue]) -> str:
    text = block.get("text")
    if not isinstance(text, str):
        raise InvalidTask("a text block must hold text", param="messages")
    return text


def write_system(messages: Sequence[Message]) -> JsonValue:
    """Write the system messages: as received, else one text, or blocks if a cache mark stands at one; or None."""
    told = [message for message in messages if message.role in _SYSTEM_ROLES]
    if len(told) == 1 and told[0].native is not None and told[0].native.wire == WIRE:
        raw = told[0].native.raw
        return raw if isinstance(raw, list) else fields_of(raw).get("content")
    parts = [part for message in told for part in message.parts]
    texts = [part for part in parts if isinstance(part, Text) and part.text]
    if not texts:
        return None
    if any(part.cache for part in texts):
        return [{"type": "text", "text": part.text} | write_cache(part.cache) for part in texts]
    return "\n\n".join(part.text for part in texts)


def write_messages(messages: Sequence[Message], recipient: Recipient) -> list[dict[str, JsonValue]]:
    """Write all other messages. Messages of one role that follow each other become one."""
    written: list[dict[str, JsonValue]] = []
    for message in order_results(messages):
        if message.role in _SYSTEM_ROLES:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        content = _write_content(message, recipient)
        if not content:
            continue
        if written and written[-1]["role"] == role:
            written[-1]["content"] = [*_as_blocks(written[-1]["content"]), *_as_blocks(content)]
        else:
            written.append({"role": role, "content": content})
    return written


def _as_blocks(content: JsonValue) -> list[JsonValue]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(items_of(content))


def _write_content(message: Message, recipient: Recipient) -> JsonValue:
    if isinstance(message.content, str) and message.native is None:
        return message.content
    chosen = select_reasoning(message, recipient, wire=WIRE)
    if message.native is not None and message.native.wire == WIRE and chosen is message:
        raw = fields_of(message.native.raw)
        return [dict(raw)] if message.role == "tool" else raw.get("content")
    return write_blocks(chosen.parts)


def write_blocks(parts: Sequence[Part]) -> list[JsonValue]:
    """Write parts as blocks. Reasoning with a text and an encrypted form becomes two."""
    blocks: list[JsonValue] = []
    for part in parts:
        if isinstance(part, Reasoning) and part.sealed and part.text:
            blocks.append(write_block(Reasoning(text=part.text, signature=part.signature)))
        if (block := write_block(part)) is not None:
            blocks.append(block)
    return blocks


def write_block(part: Part) -> dict[str, JsonValue] | None:
    """Write one part; None if it says nothing here."""
    match part:
        case Text(text=text, cache=cache):
            return {"type": "text", "text": text} | write_cache(cache) if text.strip() else None
        case Refusal(text=text):
            return {"type": "text", "text": text}
        case Reasoning(sealed=sealed) if sealed:
            return {"type": "redacted_thinking", "data": sealed}
        case Reasoning(text=text, signature=signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case ToolCall():
            named = {"id": part.id, "name": f"{part.namespace}{part.name}", "input": read_input(part)}
            return {"type": "tool_use"} | named | write_cache(part.cache)
        case ToolResult():
            return _write_result(part)
        case Media(kind=MediaKind.IMAGE | MediaKind.DOCUMENT):
            return _write_media(part)
        case ServerTool(wire=wire, raw=raw) | Opaque(wire=wire, raw=raw) if wire == WIRE:
            return dict(raw)
        case _:
            told = tell(part)
            return {"type": "text", "text": told} if told else None


def read_input(call: ToolCall) -> JsonValue:
    """Return a call's arguments as the object that Anthropic's format wants."""
    if call.is_custom:
        return {"input": call.arguments}
    try:
        found: JsonValue = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        return {"_raw": call.arguments}
    return found if isinstance(found, dict) else {"_raw": call.arguments}


def _write_result(result: ToolResult) -> dict[str, JsonValue]:
    content: JsonValue = write_blocks(result.content)
    if all(isinstance(part, Text) and not part.cache for part in result.content):
        content = result.text
    block: dict[str, JsonValue] = {"type": "tool_result", "tool_use_id": result.call, "content": content}
    if result.is_error:
        block["is_error"] = True
    return block | write_cache(result.cache)


def _write_media(part: Media) -> dict[str, JsonValue]:
    if part.url:
        source: dict[str, JsonValue] = {"type": "url", "url": part.url}
    elif part.file:
        source = {"type": "file", "file_id": part.file}
    elif part.media_type == "text/plain":
        source = {"type": "text", "media_type": "text/plain", "data": part.data}
    else:
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    named: dict[str, JsonValue] = {"title": part.name} if part.name and part.kind is MediaKind.DOCUMENT else {}
    return {"type": part.kind.value, "source": source} | named | write_cache(part.cache)


def write_cache(cache: str) -> dict[str, JsonValue]:
    """Write a cache mark; empty if there is none."""
    if not cache:
        return {}
    return {"cache_control": {"type": "ephemeral"} if cache == "5m" else {"type": "ephemeral", "ttl": cache}}
