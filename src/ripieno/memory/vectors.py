"""Vectors: the meaning of items. This projection can be rebuilt with any encoder."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
from sqlalchemy import ColumnElement, delete, exists, func, select

from ripieno.domain import Privacy
from ripieno.domain.memory import NewItem
from ripieno.encoders import Encoder, find_privacy
from ripieno.errors import RipienoError
from ripieno.memory.redact import redact
from ripieno.memory.schema import items, upsert, vectors
from ripieno.memory.store import CANARY_PROJECT, Store, with_author

_BATCH = 256


class Vectors:
    """Keeps a vector of each item that may travel to the encoder."""

    def __init__(self, store: Store, encoder: Encoder) -> None:
        self._store = store
        self._encoder = encoder
        self._privacy = find_privacy(encoder)

    async def add(self, new: Mapping[int, NewItem]) -> None:
        """Encode new items, given by their places. If the encoder fails, the rest stays for `fill`."""
        listed = [
            (place, with_author(item.author, redact(item.text)))
            for place, item in new.items()
            if item.privacy.reach >= self._privacy.reach
        ]
        for start in range(0, len(listed), _BATCH):
            if not await self._encode(listed[start : start + _BATCH]):
                break

    async def fill(self) -> None:
        """Encode the items without a vector. If the encoder fails, the rest stays."""
        while missing := await asyncio.to_thread(self._list_missing):
            if not await self._encode(missing):
                break

    async def rebuild(self) -> None:
        """Drop all vectors, and encode all items."""
        await asyncio.to_thread(self._drop)
        await self.fill()

    async def read_meaning(self, question: str, reach: Privacy) -> tuple[np.ndarray | None, str]:
        """Encode a question that may travel up to `reach`. Return why there is no vector, if there is none."""
        if reach.reach < self._privacy.reach:
            return None, f"searched by words alone: the encoder is {self._privacy}, the question {reach}"
        try:
            return (await self._encoder.encode([question]))[0], ""
        except RipienoError as error:
            return None, f"searched by words alone: {error.message}"

    def count_missing(self) -> int:
        """Count the items without a vector."""
        query = select(func.count()).select_from(items).where(*self._lacks_vector())
        with self._store.reading() as connection:
            return int(connection.execute(query).scalar_one())

    async def _encode(self, listed: Sequence[tuple[int, str]]) -> bool:
        """Encode the words of some places. Return False if the encoder fails."""
        try:
            rows = await self._encoder.encode([words for _, words in listed])
        except RipienoError:
            return False
        packed: list[dict[str, object]] = [
            {"place": place, "encoder": self._encoder.name, "vector": row.astype(np.float16).tobytes()}
            for (place, _), row in zip(listed, rows, strict=True)
        ]
        await asyncio.to_thread(self._keep, packed)
        return True

    def _list_missing(self) -> list[tuple[int, str]]:
        query = select(items.c.place, items.c.author, items.c.text).where(*self._lacks_vector())
        with self._store.reading() as connection:
            rows = connection.execute(query.order_by(items.c.place).limit(_BATCH)).all()
        return [(row.place, with_author(row.author, row.text)) for row in rows]

    def _lacks_vector(self) -> tuple[ColumnElement[bool], ...]:
        has_one = exists().where(vectors.c.place == items.c.place, vectors.c.encoder == self._encoder.name)
        may = [each.value for each in Privacy if each.reach >= self._privacy.reach]
        return (~has_one, items.c.privacy.in_(may), items.c.erased_at.is_(None), items.c.project != CANARY_PROJECT)

    def _keep(self, rows: list[dict[str, object]]) -> None:
        with self._store.writing() as connection:
            keep = upsert(connection, vectors)
            changed = {"encoder": keep.excluded.encoder, "vector": keep.excluded.vector}
            connection.execute(keep.on_conflict_do_update(index_elements=["place"], set_=changed), rows)

    def _drop(self) -> None:
        with self._store.writing() as connection:
            connection.execute(delete(vectors))
