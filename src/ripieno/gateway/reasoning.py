"""Reasoning: remembers which worker gave it, because it goes back to that worker, and to no other."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from ripieno.domain import Answer, Message
from ripieno.domain.conversation import Part, Reasoning

MOST_KEPT = 50_000
"""Pieces of reasoning whose workers are remembered, of all conversations. The oldest are forgotten first."""


class Reasonings:
    """The workers of the latest reasoning. They are not kept over a restart.

    Reasoning of an unknown worker goes to workers of the client's own wire format only.
    """

    def __init__(self) -> None:
        self._owners: OrderedDict[bytes, str] = OrderedDict()

    def remember(self, answer: Answer, worker: str) -> None:
        """Remember who gave the reasoning of an answer."""
        for part in answer.content:
            if isinstance(part, Reasoning):
                for name in _name(part):
                    self._owners[name] = worker
        while len(self._owners) > MOST_KEPT:
            self._owners.popitem(last=False)

    def assign(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return messages whose reasoning names its worker, where that is known."""
        return tuple(map(self._assign_one, messages)) if self._owners else tuple(messages)

    def _assign_one(self, message: Message) -> Message:
        if isinstance(message.content, str) or not any(isinstance(part, Reasoning) for part in message.content):
            return message
        return replace(message, content=tuple(map(self._own, message.content)))

    def _own(self, part: Part) -> Part:
        if not isinstance(part, Reasoning):
            return part
        owner = next((self._owners[name] for name in _name(part) if name in self._owners), "")
        return structs.replace(part, owner=owner) if owner else part


def _name(part: Reasoning) -> list[bytes]:
    """Return the digests by which a client's copy is known again: of its seal, its encrypted form and its text."""
    said = (value.strip() for value in (part.signature, part.sealed, part.text))
    return [hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest() for value in said if value]
