"""Boundary: how far text that holds secrets or personal data may travel."""

import asyncio
from collections.abc import Collection, Mapping

from ripieno.domain import Privacy, Sensitivity, Task
from ripieno.privacy.scanner import Scanner
from ripieno.privacy.unpack import read_text

LONG = 50_000
"""Characters from which a text is read beside the event loop."""
MOST_KNOWN = 1024
"""Tasks whose sensitivity is kept."""


def tell_kinds(found: Collection[Sensitivity]) -> str:
    """What was found, as reasons and errors name it; never the text."""
    return " and ".join(sorted(found)) + " data"


class Boundary:
    """What may leave, and how far.

    Args:
        reach: how far what is sensitive may travel.
        scanner: finds what is.
    """

    def __init__(self, reach: Privacy, scanner: Scanner) -> None:
        self.reach = reach
        self._scanner = scanner
        self._known: dict[str, frozenset[Sensitivity]] = {}

    async def find(self, value: object) -> frozenset[Sensitivity]:
        """What a value holds: a text, or whatever JSON can hold, with the names of its fields."""
        text = read_text(value)
        if len(text) < LONG:
            return self._scanner.find(text)
        return await asyncio.to_thread(self._scanner.find, text)

    async def find_in(self, task: Task) -> frozenset[Sensitivity]:
        """What all that a worker sees of a task holds; of a task that came lately it is still known."""
        name = task.digest
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = await self.find(list_seen(task))
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return known


def list_seen(task: Task) -> list[object]:
    """All that a worker sees of a task: each message whole, the tools, and the fields that are passed on."""
    messages = [[message.role, message.content, message.extra] for message in task.messages]
    joined = [_join_parts(message.content) for message in task.messages]
    return [*messages, *joined, list(task.tools), task.params]


def _join_parts(content: object) -> str | None:
    """The text parts of one message as a worker reads them, one behind the other; None where there are not several."""
    if not isinstance(content, list | tuple):
        return None
    texts = [part.get("text") for part in content if isinstance(part, Mapping)]
    found = [text for text in texts if isinstance(text, str)]
    return "".join(found) if len(found) > 1 else None
