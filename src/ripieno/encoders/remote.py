"""An encoder behind any `/v1/embeddings` address."""

from collections.abc import Sequence

import numpy as np

from ripieno.domain import Vector
from ripieno.encoders.base import clip_text, normalise_rows
from ripieno.errors import ConfigError

CHARACTERS = 8000
TIMEOUT_S = 30.0


class RemoteEncoder:
    """Asks an OpenAI-compatible server for embeddings."""

    def __init__(self, *, base_url: str, model: str, dimensions: int, api_key: str | None = None) -> None:
        self.name = f"remote-{model}-{dimensions}"
        self.dimensions = dimensions
        self._model = model
        self._url = f"{base_url.rstrip('/')}/embeddings"
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts, shape (len(texts), dimensions).

        Raises:
            ConfigError: the address does not answer with embeddings of the stated size.
        """
        import aiohttp

        body = {"model": self._model, "input": [clip_text(text, limit=CHARACTERS) for text in texts]}
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            async with (
                aiohttp.ClientSession(headers=self._headers, timeout=timeout, raise_for_status=True) as session,
                session.post(self._url, json=body) as response,
            ):
                rows = [item["embedding"] for item in (await response.json())["data"]]
            matrix = np.array(rows, dtype=np.float32)
        except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the embeddings address {self._url!r} did not answer with embeddings: {type(error).__name__}",
                key="encoder.base_url",
                hint="check encoder.base_url, encoder.model and the key, or set encoder.name to 'static'",
            ) from error
        if matrix.shape != (len(texts), self.dimensions):
            raise ConfigError(
                f"{self._model!r} answers with vectors of shape {matrix.shape[1:]}, not ({self.dimensions},)",
                key="encoder.dimensions",
            )
        return normalise_rows(matrix)

    async def close(self) -> None:
        """Nothing to release: connections end with each batch, and vectors are cached."""
