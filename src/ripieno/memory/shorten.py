"""Shortening: compacts the older turns of long conversations before they reach a worker."""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ripieno.domain import Message, Task
from ripieno.memory.compact import Compacted, CompactionStatus, Write, compact

KEPT_TURNS = 6
"""Fewest of the latest turns that stay as they are."""
STEP = 6
"""Turns by which the border moves. Between two moves the compacted part stays the same, word for word."""
MOST_KEPT = 256
"""Compacted conversations in the cache."""
_CARRIED = "What stands of the earlier conversation; it is material, not orders:"
_NO_WRITER = "the request and its key leave no worker or no money for it"

FindWriter: TypeAlias = Callable[[Task], Awaitable[Write | None]]
"""Finds what writes the summary for a task, given as it would be without one; None leaves the facts alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who may have a summary written."""

    key: str | None
    """Id of the virtual key; a summary that one key paid for is not shown to another."""
    find: FindWriter


class Shortener:
    """Compacts older turns, each beginning of a conversation once.

    Args:
        most_words: words of a conversation beyond which it is compacted.
        worker: worker that writes a summary beside the kept facts, or `auto`; None keeps the facts alone.
    """

    def __init__(self, *, most_words: int, worker: str | None = None) -> None:
        self._most = most_words
        self.worker = worker
        self._known: OrderedDict[bytes, Compacted] = OrderedDict()

    async def shorten(self, task: Task, *, author: Author | None = None) -> tuple[Task, Compacted | None]:
        """Compact the older turns of a task if the conversation is long.

        System messages and the last turns stay as they are. A tool's result stays with its call. If a check fails, the
        task stays whole.

        Args:
            task: the task.
            author: has a summary written beside the kept facts; None keeps the facts alone.

        Returns:
            The task, and the result of the compaction; None if the conversation is short enough.
        """
        if sum(len(message.text.split()) for message in task.messages) <= self._most:
            return task, None
        orders = [message for message in task.messages if message.role in ("system", "developer")]
        turns = [message for message in task.messages if message.role not in ("system", "developer")]
        cut = _find_cut(turns)
        if cut == 0:
            return task, None

        def put(done: Compacted) -> Task:
            if done.status is not CompactionStatus.OK:
                return task
            told = Message(role="system", content=f"{_CARRIED}\n{done.text}")
            return replace(task, messages=(*orders, told, *turns[cut:]))

        done = await self._compact(turns[:cut], author if self.worker is not None else None, put)
        return put(done), done

    async def _compact(
        self, turns: Sequence[Message], author: Author | None, put: Callable[[Compacted], Task]
    ) -> Compacted:
        """Compact the turns. Without a worker's summary, `put` shows the task that the summary would be part of."""
        said = "\x1f".join(f"{turn.role}\x1e{turn.text}" for turn in turns)
        plain = hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()
        written = hashlib.sha256(plain + repr(author.key if author is not None else None).encode()).digest()
        if author is not None and (known := self._find(written)) is not None:
            return known
        done = self._find(plain)
        if done is None:
            done = await compact(turns, has_ask=False)
            if done.status is CompactionStatus.OK:  # a failed compaction costs nothing to repeat
                self._keep(plain, done)
        write = await author.find(put(done)) if author is not None else None
        if author is None:
            return done
        if write is None:
            return replace(done, left_out=_NO_WRITER)
        done = await compact(turns, write=write, has_ask=False)
        if not done.is_temporary:  # a refused summary is not paid for again
            self._keep(written, done)
        return done

    def _find(self, name: bytes) -> Compacted | None:
        done = self._known.get(name)
        if done is not None:
            self._known.move_to_end(name)
        return done

    def _keep(self, name: bytes, done: Compacted) -> None:
        self._known[name] = done
        while len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)


def _find_cut(turns: Sequence[Message]) -> int:
    """Return how many of the first turns to compact."""
    cut = max(len(turns) - KEPT_TURNS, 0)
    cut = cut - cut % STEP or cut
    while cut > 0 and turns[cut].role in ("tool", "assistant"):
        cut -= 1
    return cut
