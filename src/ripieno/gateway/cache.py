"""Cache of answers to exactly equal requests: opt-in, bounded, never of errors, never across keys."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from ripieno.domain import Answer, Task
from ripieno.domain.grader import Check
from ripieno.gateway.keyring import Grant
from ripieno.gateway.provenance import Provenance


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer, and where it came from."""

    answer: Answer
    decision: str
    worker: str
    provenance: Provenance
    """What the first response reported."""


class AnswerCache:
    """The latest answers by request.

    Args:
        largest: bytes of text and wire; the least recently used answers leave first.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._size = 0
        self._kept: OrderedDict[bytes, tuple[int, CachedAnswer]] = OrderedDict()

    def find(self, name: bytes) -> CachedAnswer | None:
        """Return the answer to a request, if it is cached."""
        found = self._kept.get(name)
        if found is None:
            return None
        self._kept.move_to_end(name)
        return found[1]

    def keep(self, name: bytes, cached: CachedAnswer) -> None:
        """Cache an answer, unless it is larger than a quarter of the cache."""
        size = measure(cached.answer)
        if size > self._largest // 4:
            return
        old = self._kept.pop(name, None)
        self._size += size - (old[0] if old is not None else 0)
        self._kept[name] = (size, cached)
        while self._size > self._largest:
            self._size -= self._kept.popitem(last=False)[1][0]


def measure(answer: Answer) -> int:
    """Return roughly the bytes that an answer takes."""
    received = answer.native.raw if answer.native is not None else b""
    size = len(received) if isinstance(received, bytes) else len(msgspec.json.encode(received))
    return size + len(msgspec.json.encode(answer.content)) + 4 * len(answer.text) + 1000


def name_request(task: Task, grant: Grant, *, check: Check | None) -> bytes:
    """Make a digest of who asks, of all that a worker sees, and of all that the choice of the worker depends on.

    So a key never gets another key's answer, nor learns that another key asked.
    """
    who = (grant.id, grant.is_admin)
    native = task.native
    own_fields = (native.wire, native.fields) if native is not None else None  # the digest of the task has them not
    seen = (task.digest, task.served_tools, own_fields)
    return hashlib.sha256(msgspec.json.encode((who, seen, task.objective, check))).digest()
