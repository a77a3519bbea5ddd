"""Answers that were given before to exactly the same request: opt-in, bounded, never an error, never across keys."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from ripieno.domain import Answer, Task
from ripieno.domain.grader import Check
from ripieno.gateway.keyring import Grant
from ripieno.gateway.told import Told


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, and where it came from."""

    answer: Answer
    decision: str
    worker: str
    told: Told
    """What was said about it then."""


class AnswerCache:
    """The latest answers by request.

    Args:
        largest: bytes of text and wire that are kept; the oldest go first.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._size = 0
        self._kept: OrderedDict[bytes, tuple[int, Kept]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, name: bytes) -> Kept | None:
        """The answer to a request, if it is kept."""
        found = self._kept.get(name)
        if found is None:
            return None
        self._kept.move_to_end(name)
        return found[1]

    def keep(self, name: bytes, kept: Kept) -> None:
        """Keep an answer."""
        size = len(kept.answer.wire) + 4 * len(kept.answer.text) + 1000
        if size > self._largest // 4:
            return
        old = self._kept.pop(name, None)
        self._size += size - (old[0] if old is not None else 0)
        self._kept[name] = (size, kept)
        while self._size > self._largest:
            self._size -= self._kept.popitem(last=False)[1][0]


def name_request(task: Task, grant: Grant, *, check: Check | None) -> bytes:
    """The name of a request: who asks, all that a worker sees, and all that decides which worker sees it.

    No key is given what another one was told: neither its answer, nor that it asked, nor the id of its decision.
    """
    who = (grant.id, grant.is_admin)
    return hashlib.sha256(msgspec.json.encode((who, task.digest, task.objective, check))).digest()
