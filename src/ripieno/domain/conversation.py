"""Conversation: messages of typed parts. Every wire format reads into this form and writes from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import msgspec

JsonValue: TypeAlias = object
"""A value that JSON can hold; passed on unchanged."""


class MediaKind(StrEnum):
    """Kind of a part that is no text."""

    IMAGE = "image"
    AUDIO = "audio"
    DOCUMENT = "document"
    VIDEO = "video"


class PartBase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="part", tag=str.lower):
    """Base of all parts. `part` names the class in the recorded form."""


class Citation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Source of a text."""

    url: str = ""
    title: str = ""
    quote: str = ""
    start: int | None = None
    """First character of the text that the source supports."""
    end: int | None = None


class Text(PartBase, frozen=True):
    """Text."""

    text: str
    cache: str = ""
    """Lifetime of the cache mark after this part (`5m`, `1h`); empty if there is none."""
    citations: tuple[Citation, ...] = ()


class Media(PartBase, frozen=True):
    """An image, audio, a document or a video: one of `url`, `data` and `file` is set."""

    kind: MediaKind
    url: str = ""
    data: str = ""
    """The content in base64; for a document of type `text/plain`, the text itself."""
    file: str = ""
    """Id of a file that the client has uploaded to its vendor."""
    media_type: str = ""
    name: str = ""
    detail: str = ""
    """Resolution that the client asks for: `low`, `high` or `auto`."""
    cache: str = ""


class ToolCall(PartBase, frozen=True):
    """A call of a tool of the client."""

    id: str
    name: str
    arguments: str = "{}"
    """JSON text; for a custom tool, free text."""
    namespace: str = ""
    """Group of the tool, as Codex names it; empty outside a group."""
    is_custom: bool = False
    """Whether the tool takes free text."""
    signature: str = ""
    """The vendor's seal of the call's reasoning."""
    cache: str = ""


class ToolResult(PartBase, frozen=True):
    """The result of a tool call."""

    call: str
    """Id of the call."""
    content: tuple["Text | Media | Opaque", ...] = ()
    is_error: bool = False
    is_custom: bool = False
    cache: str = ""

    @property
    def text(self) -> str:
        """Return the text of the result, its parts joined by newlines."""
        return "\n".join(part.text for part in self.content if isinstance(part, Text))


class Reasoning(PartBase, frozen=True):
    """Reasoning of a worker. It goes back to the worker that gave it, and to no other."""

    text: str = ""
    signature: str = ""
    """The vendor's seal, without which it refuses the text."""
    sealed: str = ""
    """Encrypted reasoning, for the vendor alone."""
    id: str = ""
    owner: str = ""
    """The worker; empty if the client does not say."""


class Refusal(PartBase, frozen=True):
    """Words with which a worker refuses."""

    text: str


class ServerTool(PartBase, frozen=True):
    """A tool that the vendor itself runs: a use of it, or its result."""

    wire: str
    kind: str
    """Type in the format of the vendor: `server_tool_use`, `web_search_tool_result`, `web_search_call`."""
    raw: Mapping[str, JsonValue]


class Opaque(PartBase, frozen=True):
    """A part that only its own wire format knows."""

    wire: str
    kind: str
    raw: Mapping[str, JsonValue]


Part: TypeAlias = Text | Media | ToolCall | ToolResult | Reasoning | Refusal | ServerTool | Opaque


@dataclass(frozen=True, slots=True)
class Native:
    """A value in the form of one wire format, for a worker of the same format."""

    wire: str
    raw: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRequest:
    """The fields of a request as received, with what was read of them. A change of the task shows in the difference."""

    wire: str
    fields: Mapping[str, JsonValue]
    """All fields but the model, the messages and those of the gateway."""
    tools: tuple[Mapping[str, JsonValue], ...]
    params: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation."""

    role: str
    """`system`, `developer`, `user`, `assistant` or `tool`."""
    content: str | tuple[Part, ...] = ""
    """A message of one text is a string."""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)
    """Further fields (a name, fields of a vendor), passed on unchanged to workers of chat completions."""
    native: Native | None = field(default=None, repr=False, compare=False)
    """The message as received. Not recorded; None if it was made here."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return the parts; a text is one part."""
        if isinstance(self.content, str):
            return (Text(text=self.content),) if self.content else ()
        return self.content

    @property
    def text(self) -> str:
        """Return all text of the message and of its tool results, joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, Text | ToolResult))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Return the tool calls."""
        return () if isinstance(self.content, str) else tuple(p for p in self.content if isinstance(p, ToolCall))

    def count_media(self, kind: MediaKind) -> int:
        """Count the parts of a kind, those of tool results included."""
        return sum(isinstance(part, Media) and part.kind is kind for part in list_leaves(self.content))


def list_leaves(content: str | tuple[Part, ...]) -> list[Part]:
    """List the parts of a message, with the parts of tool results in place of the results."""
    found: list[Part] = []
    for part in () if isinstance(content, str) else content:
        found.extend(part.content if isinstance(part, ToolResult) else (part,))
    return found
