"""Memory: the interface for harness, gateway and commands. Reads report outages; a receipt means durable."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ripieno.domain import Clock, Privacy
from ripieno.domain.memory import Erasure, Item, ItemKind, NewItem, ReadStatus, Recall, Recalled, Receipt, Scope
from ripieno.encoders import Encoder
from ripieno.errors import MemoryUnavailable, RipienoError
from ripieno.memory.health import BEAT_S, CANARY, CANARY_SCOPE, MemoryHealth, Pulse, mark_beat, read_health
from ripieno.memory.importers import Import, import_source
from ripieno.memory.search import SearchScope, search
from ripieno.memory.store import Store, rebuild
from ripieno.memory.sync import LARGEST_LOSS, Version, list_watermarks, sync
from ripieno.memory.vectors import Vectors
from ripieno.memory.waiting import Waiting

READ_S = 2.0
"""Seconds until a read returns or reports an outage."""


class Memory:
    """Remembers, recalls and forgets.

    Args:
        encoder: encodes meaning. If it fails, the search uses words alone, and the read says so.
    """

    def __init__(self, store: Store, encoder: Encoder, clock: Clock, *, read_s: float = READ_S) -> None:
        self.store = store
        self._vectors = Vectors(store, encoder)
        self._clock = clock
        self._read_s = read_s

    async def remember(self, new: Sequence[NewItem]) -> list[Receipt]:
        """Write items. Each receipt means that its item is on disk.

        Raises:
            DataError: a text is too long.
            NotFound: an item refers to one that does not exist.
            MemoryUnavailable: nothing was written.
        """
        receipts = await asyncio.to_thread(self.store.write, new)
        fresh = {receipt.place: item for receipt, item in zip(receipts, new, strict=True) if receipt.is_new}
        await self._vectors.add(fresh)
        return receipts

    async def drain(self, waiting: Waiting) -> int:
        """Write the items of a queue, in order, and return their number.

        Raises:
            MemoryUnavailable: the items cannot be written. They stay in the queue.
        """
        count = await asyncio.to_thread(waiting.drain, self.store.write)
        await self._vectors.fill()
        return count

    async def sync(self, source: str, new: Sequence[NewItem], *, bound: float = LARGEST_LOSS) -> Version:
        """Replace a source's whole content. See `sync`."""
        version = await asyncio.to_thread(sync, self.store, source, new, bound=bound)
        await self._vectors.fill()
        return version

    async def import_source(self, kind: str, request: Import) -> int:
        """Import the items of a source beyond its watermark. See `import_source`."""
        new = await asyncio.to_thread(import_source, self.store, kind, request)
        await self._vectors.fill()
        return new

    async def recall(
        self,
        question: str,
        *,
        scope: Scope | None = None,
        most: int = 10,
        reach: Privacy | None = None,
        as_of: float | None = None,
        kinds: Sequence[ItemKind] = (),
    ) -> Recall:
        """Find the items that fit a question. An outage raises nothing and never reads as an empty memory.

        Args:
            question: the question in words.
            scope: scope of the memory. Default: the scope shared by all.
            most: most items to return.
            reach: how far the recalled items will travel, and how far the question may. An encoder beyond it is not
                called. None recalls all items, and calls any encoder.
            as_of: a past time; the result is what was known and true then.
            kinds: kinds of items; none means all.
        """
        reader = SearchScope(
            scope=scope or Scope(),
            reach=reach or Privacy.LOCAL,
            now=self._clock.now(),
            as_of=as_of,
            kinds=tuple(kind.value for kind in kinds),
        )
        meaning, fault = await self._vectors.read_meaning(question, reach or Privacy.PUBLIC)
        try:
            async with asyncio.timeout(self._read_s):
                found = await asyncio.to_thread(self._look_up, question, meaning, reader, most)
        except (MemoryUnavailable, TimeoutError) as error:
            return Recall(status=ReadStatus.UNAVAILABLE, detail=_reason(error))
        status = ReadStatus.EMPTY if not found.items else ReadStatus.PARTIAL if fault else ReadStatus.OK
        return replace(found, status=status, detail=fault)

    async def get(self, ids: Sequence[str]) -> list[Item]:
        """Return items by their ids. See `Store.get`."""
        return await asyncio.to_thread(self.store.get, ids)

    async def history(self, name: str) -> list[Item]:
        """Return all versions of the item whose id begins so. See `Store.history`."""
        return await asyncio.to_thread(lambda: self.store.history(self.store.find(name)))

    async def forget(self, name: str) -> Erasure:
        """Erase the item whose id begins so. See `Store.erase`."""
        return await asyncio.to_thread(lambda: self.store.erase(self.store.find(name)))

    async def rebuild(self) -> int:
        """Rebuild all projections from the items, and return the number of items."""
        count = await asyncio.to_thread(rebuild, self.store)
        await self._vectors.rebuild()
        return count

    async def beat(self) -> bool:
        """Write a canary and read it back through the public path. Return whether it came back."""
        now = self._clock.now()
        text = f"canary {now:.6f}"
        await asyncio.to_thread(self.store.write, [NewItem(text=text, scope=CANARY_SCOPE, kind=ItemKind.NOISE)])
        found = await self.recall(text, scope=CANARY_SCOPE, most=3)
        is_back = any(each.item.text == text for each in found.items)
        if is_back:
            await asyncio.to_thread(mark_beat, self.store, now)
        return is_back

    async def health(self, *, beat_s: float = BEAT_S) -> MemoryHealth:
        """Return the results of the canary and the watermarks. Never raises."""
        try:
            async with asyncio.timeout(self._read_s):
                return await asyncio.to_thread(
                    lambda: read_health(self.store, unembedded=self._vectors.count_missing(), beat_s=beat_s)
                )
        except (MemoryUnavailable, TimeoutError) as error:
            return MemoryHealth(pulse=Pulse.UNAVAILABLE, detail=_reason(error))

    def close(self) -> None:
        """Close the database."""
        self.store.engine.dispose()

    def _look_up(self, question: str, meaning: np.ndarray | None, reader: SearchScope, most: int) -> Recall:
        with self.store.reading() as connection:
            found = search(connection, question, meaning, reader, most=most)
        newest = self.store.newest()
        kept = {item.place: item for item in self.store.at(found.places)}
        marks = [each.committed_at for each in list_watermarks(self.store) if each.source != CANARY]
        listed = tuple(
            Recalled(item=kept[place], score=score, because=because)
            for place, score, because in zip(found.places, found.scores, found.because, strict=True)
        )
        return Recall(
            status=ReadStatus.OK,
            items=listed,
            support=_calibrate(found.support),
            age_s=self._clock.now() - newest if newest is not None else None,
            synced_at=max((each for each in marks if each is not None), default=None),
        )


def outage_notice(recall: Recall) -> str:
    """Return the line that tells the model about an outage; empty if memory could be read."""
    if recall.status is not ReadStatus.UNAVAILABLE:
        return ""
    return "Memory is unavailable now: do not claim to remember anything, and say so if it matters."


def _calibrate(likeness: float) -> float:
    """Convert a similarity into the probability that memory holds the answer: a logistic with its middle at 0.5."""
    return float(1.0 / (1.0 + np.exp(-10.0 * (likeness - 0.5))))


def _reason(error: Exception) -> str:
    if isinstance(error, RipienoError):
        return error.message
    return "memory did not answer in time"
