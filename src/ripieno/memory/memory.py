"""Memory: the interface for harness, gateway and commands. Reads report outages; a receipt means durable."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from sqlalchemy import ColumnElement, delete, exists, func, select, update

from ripieno.domain import Clock, Privacy
from ripieno.domain.memory import (
    Erasure,
    Item,
    ItemKind,
    NewItem,
    ReadStatus,
    Recall,
    Recalled,
    Receipt,
    Scope,
)
from ripieno.encoders import Encoder, find_privacy
from ripieno.errors import MemoryUnavailable, RipienoError
from ripieno.memory.importers import Import, import_source
from ripieno.memory.redact import redact
from ripieno.memory.schema import items, sources, upsert, vectors
from ripieno.memory.search import SearchScope, search
from ripieno.memory.store import CANARY_PROJECT, Store, rebuild, to_item, with_author
from ripieno.memory.sync import LARGEST_LOSS, Version, Watermark, list_versions, list_watermarks, move_watermark, sync

READ_S = 2.0
"""Seconds until a read returns or reports an outage."""
BEAT_S = 60.0
"""Seconds between two writes of the canary."""
CANARY = "canary"
_BATCH = 256
_LOCAL = Scope(project=CANARY_PROJECT)


class Pulse(StrEnum):
    """State of memory."""

    OK = "ok"
    STALLED = "stalled"
    """It answers, but the canary is two periods late, or a source has seen more than is committed."""
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryHealth:
    """Results of the canary and the watermarks."""

    pulse: Pulse
    items: int = 0
    newest_at: float | None = None
    unembedded: int = 0
    """Items without a vector: the lag of that projection."""
    beat_at: float | None = None
    """Time at which the canary was last written and read back."""
    sources: tuple[Watermark, ...] = ()
    stalled: tuple[str, ...] = ()
    """Sources that have seen more than is committed."""
    quarantined: tuple[Version, ...] = ()
    """Latest sync of each source that is in quarantine."""
    detail: str = ""


class Memory:
    """Remembers, recalls and forgets.

    Args:
        encoder: encodes meaning. If it fails, the search uses words alone, and the read says so.
    """

    def __init__(self, store: Store, encoder: Encoder, clock: Clock, *, read_s: float = READ_S) -> None:
        self._store = store
        self._encoder = encoder
        self._clock = clock
        self._read_s = read_s

    async def remember(self, new: Sequence[NewItem]) -> list[Receipt]:
        """Write items. Each receipt means that its item is on disk.

        Raises:
            DataError: a text is too long.
            NotFound: an item refers to one that does not exist.
            MemoryUnavailable: nothing was written.
        """
        receipts = await asyncio.to_thread(self._store.write, new)
        fresh = {receipt.place: item for receipt, item in zip(receipts, new, strict=True) if receipt.is_new}
        listed = [
            (place, with_author(item.author, redact(item.text)))
            for place, item in fresh.items()
            if self._may_encode(item)
        ]
        for start in range(0, len(listed), _BATCH):
            if not await self._give_vectors(listed[start : start + _BATCH]):
                break
        return receipts

    def _may_encode(self, item: NewItem) -> bool:
        """Return whether an item may travel to the encoder."""
        return item.privacy.reach >= find_privacy(self._encoder).reach

    def write(self, new: Sequence[NewItem]) -> list[Receipt]:
        """Write items without vectors. `embed` adds them later. See `Store.write`."""
        return self._store.write(new)

    async def sync(self, source: str, new: Sequence[NewItem], *, bound: float = LARGEST_LOSS) -> Version:
        """Replace a source's whole content. See `sync`."""
        version = await asyncio.to_thread(sync, self._store, source, new, bound=bound)
        await self.embed()
        return version

    async def import_source(
        self, kind: str, request: Import, *, on_progress: Callable[[int], None] | None = None
    ) -> int:
        """Import the items of a source beyond its watermark. See `import_source`."""
        new = await asyncio.to_thread(import_source, self._store, kind, request, on_progress=on_progress)
        await self.embed()
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
        meaning, fault = await self._read_meaning(question, reach or Privacy.PUBLIC)
        try:
            async with asyncio.timeout(self._read_s):
                found = await asyncio.to_thread(self._look_up, question, meaning, reader, most)
        except (MemoryUnavailable, TimeoutError) as error:
            return Recall(status=ReadStatus.UNAVAILABLE, detail=_reason(error))
        status = ReadStatus.EMPTY if not found.items else ReadStatus.PARTIAL if fault else ReadStatus.OK
        return replace(found, status=status, detail=fault)

    async def get(self, ids: Sequence[str]) -> list[Item]:
        """Return items by their ids. See `Store.get`."""
        return await asyncio.to_thread(self._store.get, ids)

    async def history(self, name: str) -> list[Item]:
        """Return all versions of the item whose id begins so. See `Store.history`."""
        return await asyncio.to_thread(lambda: self._store.history(self._store.find(name)))

    async def forget(self, name: str) -> Erasure:
        """Erase the item whose id begins so. See `Store.erase`."""
        return await asyncio.to_thread(lambda: self._store.erase(self._store.find(name)))

    async def rebuild(self) -> int:
        """Rebuild all projections from the items, and return the number of items."""
        count = await asyncio.to_thread(rebuild, self._store)
        await asyncio.to_thread(self._drop_vectors)
        await self.embed()
        return count

    async def embed(self) -> int:
        """Encode the items without a vector, and return how many got one. If the encoder fails, the rest stays."""
        done = 0
        while missing := await asyncio.to_thread(self._list_unembedded):
            if not await self._give_vectors(missing):
                break
            done += len(missing)
        return done

    async def _give_vectors(self, listed: Sequence[tuple[int, str]]) -> bool:
        """Encode the words of some places. Return False if the encoder fails."""
        try:
            rows = await self._encoder.encode([words for _, words in listed])
        except RipienoError:
            return False
        packed: list[dict[str, object]] = [
            {"place": place, "encoder": self._encoder.name, "vector": row.astype(np.float16).tobytes()}
            for (place, _), row in zip(listed, rows, strict=True)
        ]
        await asyncio.to_thread(self._keep_vectors, packed)
        return True

    async def read_onward(self, reader: str, *, most: int) -> tuple[int, list[Item]]:
        """Return a reader's cursor and the turns beyond it, in order.

        Raises:
            MemoryUnavailable: memory cannot be read.
        """
        return await asyncio.to_thread(self._read_onward, reader, most)

    async def mark_read(self, reader: str, place: int) -> None:
        """Move a reader's cursor to the place of an item.

        Raises:
            MemoryUnavailable: the cursor cannot be moved.
        """
        await asyncio.to_thread(self._mark_read, reader, place)

    async def beat(self) -> bool:
        """Write a canary and read it back through the public path. Return whether it came back."""
        now = self._clock.now()
        mark_ = f"canary {now:.6f}"
        await asyncio.to_thread(self._store.write, [NewItem(text=mark_, scope=_LOCAL, kind=ItemKind.NOISE)])
        found = await self.recall(mark_, scope=_LOCAL, most=3)
        is_back = any(each.item.text == mark_ for each in found.items)
        if is_back:
            await asyncio.to_thread(self._mark, CANARY, now)
        return is_back

    async def health(self, *, beat_s: float = BEAT_S) -> MemoryHealth:
        """Return the results of the canary and the watermarks. Never raises."""
        try:
            async with asyncio.timeout(self._read_s):
                return await asyncio.to_thread(self._examine, beat_s)
        except (MemoryUnavailable, TimeoutError) as error:
            return MemoryHealth(pulse=Pulse.UNAVAILABLE, detail=_reason(error))

    def close(self) -> None:
        """Close the database."""
        self._store.engine.dispose()

    async def _read_meaning(self, question: str, reach: Privacy) -> tuple[np.ndarray | None, str]:
        if reach.reach < find_privacy(self._encoder).reach:
            return None, f"searched by words alone: the encoder is {find_privacy(self._encoder)}, the question {reach}"
        try:
            return (await self._encoder.encode([question]))[0], ""
        except RipienoError as error:
            return None, f"searched by words alone: {error.message}"

    def _look_up(self, question: str, meaning: np.ndarray | None, reader: SearchScope, most: int) -> Recall:
        with self._store.reading() as connection:
            found = search(connection, question, meaning, reader, most=most)
        newest = self._store.newest()
        kept = {item.place: item for item in self._store.at(found.places)}
        marks = [each.committed_at for each in list_watermarks(self._store) if each.source != CANARY]
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

    def _list_unembedded(self) -> list[tuple[int, str]]:
        query = select(items.c.place, items.c.author, items.c.text).where(*self._lacks_vector())
        with self._store.reading() as connection:
            rows = connection.execute(query.order_by(items.c.place).limit(_BATCH)).all()
        return [(row.place, with_author(row.author, row.text)) for row in rows]

    def _lacks_vector(self) -> tuple[ColumnElement[bool], ...]:
        has_one = exists().where(vectors.c.place == items.c.place, vectors.c.encoder == self._encoder.name)
        may = [each.value for each in Privacy if each.reach >= find_privacy(self._encoder).reach]
        return (~has_one, items.c.privacy.in_(may), items.c.erased_at.is_(None), items.c.project != _LOCAL.project)

    def _keep_vectors(self, rows: list[dict[str, object]]) -> None:
        with self._store.writing() as connection:
            keep = upsert(connection, vectors)
            changed = {"encoder": keep.excluded.encoder, "vector": keep.excluded.vector}
            connection.execute(keep.on_conflict_do_update(index_elements=["place"], set_=changed), rows)

    def _drop_vectors(self) -> None:
        with self._store.writing() as connection:
            connection.execute(delete(vectors))

    def _read_onward(self, reader: str, most: int) -> tuple[int, list[Item]]:
        with self._store.reading() as connection:
            found = connection.execute(select(sources.c.cursor).where(sources.c.name == reader)).scalar()
            cursor = int(found or 0)
            query = select(items).where(
                items.c.place > cursor,
                items.c.kind == ItemKind.EPISODE.value,
                items.c.derived_from == "",
                items.c.erased_at.is_(None),
                items.c.project != _LOCAL.project,
            )
            rows = connection.execute(query.order_by(items.c.place).limit(most)).mappings()
            return cursor, [to_item(row) for row in rows]

    def _mark_read(self, reader: str, place: int) -> None:
        now = self._clock.now()
        with self._store.writing() as connection:
            move_watermark(connection, reader, seen_at=now, committed_at=now, cursor=str(place))

    def _mark(self, source: str, at: float) -> None:
        with self._store.writing() as connection:
            move_watermark(connection, source, seen_at=at, committed_at=at)
            connection.execute(update(items).where(items.c.project == _LOCAL.project).values(expires_at=at))

    def _examine(self, beat_s: float) -> MemoryHealth:
        marks = list_watermarks(self._store)
        now = self._clock.now()
        beat_at = next((each.committed_at for each in marks if each.source == CANARY), None)
        named = [each for each in marks if each.source != CANARY]
        stalled = [
            each.source
            for each in named
            if each.seen_at is not None
            and each.seen_at > (each.committed_at or 0.0)
            and now - (each.committed_at or 0.0) > 2.0 * beat_s
        ]
        latest = [list_versions(self._store, each.source)[-1:] for each in named]
        is_late = beat_at is not None and now - beat_at > 2.0 * beat_s
        with self._store.reading() as connection:
            query = select(func.count()).select_from(items).where(*self._lacks_vector())
            unembedded = connection.execute(query).scalar_one()
        return MemoryHealth(
            pulse=Pulse.STALLED if stalled or is_late else Pulse.OK,
            items=self._store.count(),
            newest_at=self._store.newest(),
            unembedded=int(unembedded),
            beat_at=beat_at,
            sources=tuple(named),
            stalled=tuple(stalled),
            quarantined=tuple(each for found in latest for each in found if each.status == "quarantined"),
            detail="the canary is more than two periods late" if is_late else "",
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
