"""Boundary: limits where text with secrets or personal data may travel."""

import asyncio
from collections.abc import Collection
from hashlib import sha256

from msgspec import to_builtins

from ripieno.domain import Message, Privacy, Sensitivity, Task
from ripieno.domain.conversation import Text, ToolResult
from ripieno.privacy.scanner import Scanner
from ripieno.privacy.unpack import read_text

LONG = 50_000
"""Characters from which a text is scanned in a thread, outside the event loop."""
MOST_KNOWN = 1024
"""Tasks whose sensitivity is cached."""


def describe_kinds(found: Collection[Sensitivity]) -> str:
    """Describe what was found, for reasons and errors, without the text."""
    return " and ".join(sorted(found)) + " data"


class Boundary:
    """A limit on where sensitive text may travel, and the scanner that finds such text."""

    def __init__(self, reach: Privacy, scanner: Scanner) -> None:
        self.reach = reach
        self._scanner = scanner
        self._known: dict[bytes, frozenset[Sensitivity]] = {}
        """Findings by the digest of the text. The digest of a task does not cover what only its own format carries."""

    async def find(self, value: object) -> frozenset[Sensitivity]:
        """Find the sensitive data of a value: a text, or any JSON value with its field names."""
        return await self._scan(read_text(value))

    async def find_in(self, task: Task) -> frozenset[Sensitivity]:
        """Find the sensitive data in all that a worker sees of a task. Results are cached."""
        text = read_text(list_seen(task))
        name = sha256(text.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = await self._scan(text)
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return known

    async def _scan(self, text: str) -> frozenset[Sensitivity]:
        if len(text) < LONG:
            return self._scanner.find(text)
        return await asyncio.to_thread(self._scanner.find, text)


def list_seen(task: Task) -> list[object]:
    """List all that a worker sees of a task: each whole message, the tools, and the fields that are passed on."""
    messages = [[message.role, _list_content(message), message.extra] for message in task.messages]
    joined = [_join_parts(message) for message in task.messages]
    native = task.native
    if native is not None and native.tools == task.tools:  # the fields as received hold the tools
        return [*messages, *joined, native.fields, task.params]
    return [*messages, *joined, list(task.tools), task.params]


def _list_content(message: Message) -> object:
    """Return the content of a message: as received, which has all that was read of it, or as it was made."""
    if message.native is not None:
        return message.native.raw
    return message.content if isinstance(message.content, str) else to_builtins(message.content)


def _join_parts(message: Message) -> str | None:
    """Join the text parts of one message, as a worker reads them; None unless there are several."""
    found = [part.text for part in message.parts if isinstance(part, Text | ToolResult)]
    return "".join(found) if len(found) > 1 else None
