"""Encoder: text to vectors, one small interface."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ripieno.domain import Privacy, Vector
from ripieno.privacy import Boundary


class Encoder(Protocol):
    """Turns texts into vectors of unit length. Built-in and plugin encoders have the same role."""

    name: str
    """Name and version. A checkpoint trained on one encoder refuses another."""
    dimensions: int

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts, in order.

        Returns:
            Shape (len(texts), dimensions); each row has length 1, or is zero for a text without words.
        """
        ...

    async def close(self) -> None:
        """Release the encoder's resources."""
        ...


def find_privacy(encoder: object) -> Privacy:
    """Return how far an encoder sends texts: its attribute `privacy`, or local if it has none."""
    return Privacy(getattr(encoder, "privacy", Privacy.LOCAL))


async def encode_within(encoder: Encoder, texts: Sequence[str], reach: Privacy) -> Vector:
    """Encode texts that may travel up to `reach`. Rows are zero if the encoder is farther away."""
    if reach.reach < find_privacy(encoder).reach:
        return np.zeros((len(texts), encoder.dimensions), dtype=np.float32)
    return await encoder.encode(texts)


def clip_text(text: str, *, limit: int) -> str:
    """Keep the head and tail of a long text, `limit` characters in all, to bound the cost of encoding."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n{text[-half:]}"


def normalise_rows(matrix: Vector) -> Vector:
    """Scale each row to length 1. Rows of zeros stay zero."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.maximum(lengths, 1e-12), dtype=np.float32)


class CachedEncoder:
    """Caches the vectors of the last `size` distinct texts."""

    def __init__(self, inner: Encoder, *, size: int = 4096) -> None:
        self.inner = inner
        self.name = inner.name
        self.dimensions = inner.dimensions
        self.privacy = find_privacy(inner)
        self.hits = 0
        self.misses = 0
        self._size = size
        self._rows: OrderedDict[str, Vector] = OrderedDict()

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts. Only uncached texts reach the inner encoder."""
        missing = list(dict.fromkeys(text for text in texts if text not in self._rows))
        self.misses += len(missing)
        self.hits += len(texts) - len(missing)
        fresh = dict(zip(missing, await self.inner.encode(missing), strict=True)) if missing else {}
        rows = [self._look_up(text, fresh) for text in texts]
        for text, row in fresh.items():
            self._rows[text] = row
        while len(self._rows) > self._size:
            self._rows.popitem(last=False)
        return np.stack(rows) if rows else np.zeros((0, self.dimensions), dtype=np.float32)

    async def close(self) -> None:
        """Close the inner encoder and drop all rows."""
        self._rows.clear()
        await self.inner.close()

    def _look_up(self, text: str, fresh: dict[str, Vector]) -> Vector:
        if text in fresh:
            return fresh[text]
        self._rows.move_to_end(text)
        return self._rows[text]


class GuardedEncoder:
    """Keeps sensitive text from an encoder beyond the boundary: such a text gets a row of zeros.

    Args:
        boundary: returns the current limit on where sensitive text may travel; None does not restrict it.
    """

    def __init__(self, inner: Encoder, boundary: Callable[[], Boundary | None]) -> None:
        self.inner = inner
        self.name = inner.name
        self.dimensions = inner.dimensions
        self.privacy = find_privacy(inner)
        self._boundary = boundary

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts, except those that may not travel to the inner encoder."""
        boundary = self._boundary()
        if boundary is None or self.privacy.reach <= boundary.reach.reach:
            return await self.inner.encode(texts)
        may = [not await boundary.find(text) for text in texts]
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        if any(may):
            rows[may] = await self.inner.encode([text for text, goes in zip(texts, may, strict=True) if goes])
        return rows

    async def close(self) -> None:
        """Close the inner encoder."""
        await self.inner.close()
