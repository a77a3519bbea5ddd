"""An encoder behind any `/v1/embeddings` address."""

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ripieno.domain import Privacy, Vector
from ripieno.encoders.base import clip_text, normalise_rows
from ripieno.errors import ConfigError
from ripieno.providers.http import HttpClient, Timeouts

CHARACTERS = 8000
TIMEOUT_S = 30.0


class RemoteOptions(BaseModel):
    """Options of `encoder.name = "remote"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    model: str
    dimensions: int = Field(ge=1)
    api_key: SecretStr | None = None
    privacy: Privacy | None = None
    """How far a text travels to it. Default: local for an address of this machine, else public."""


class RemoteEncoder:
    """Requests embeddings from an OpenAI-compatible server."""

    def __init__(self, options: RemoteOptions) -> None:
        self.privacy = options.privacy or (Privacy.LOCAL if _is_here(options.base_url) else Privacy.PUBLIC)
        self.name = f"remote-{options.model}-{options.dimensions}"
        self.dimensions = options.dimensions
        self._model = options.model
        self._url = f"{options.base_url.rstrip('/')}/embeddings"
        headers = {"content-type": "application/json"}
        if options.api_key is not None:
            headers["authorization"] = f"Bearer {options.api_key.get_secret_value()}"
        self._client = HttpClient(options.base_url, headers=headers, timeouts=Timeouts(total_s=TIMEOUT_S))

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts, shape (len(texts), dimensions).

        Raises:
            ConfigError: the address does not answer with embeddings of the stated size.
        """
        body = {"model": self._model, "input": [clip_text(text, limit=CHARACTERS) for text in texts]}
        try:
            reply = await self._client.fetch("POST", "/embeddings", msgspec.json.encode(body))
            rows = [item["embedding"] for item in msgspec.json.decode(reply.body)["data"]]
            matrix = np.array(rows, dtype=np.float32)
        except (OSError, TimeoutError, KeyError, TypeError, ValueError) as error:
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
        """Close the connections."""
        await self._client.close()


def _is_here(url: str) -> bool:
    """Return whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
