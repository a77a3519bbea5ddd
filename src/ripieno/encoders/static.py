"""The default encoder: a static token table distilled from all-MiniLM-L6-v2, well under a millisecond a text.

The table ships with the package (29,525 tokens x 256, int8) and is made by `scripts/build_static_encoder.py`.

Source:
    Tulkens & van Dongen (2024), Model2Vec: distillation of sentence transformers into static vectors.
"""

from collections.abc import Sequence
from importlib.resources import as_file, files

import numpy as np

from ripieno.domain import Vector
from ripieno.encoders.base import clip_text, normalise_rows

CHARACTERS = 6000
"""Longest text that is read, head and tail together: about 1,500 tokens, 1 ms."""


class StaticEncoder:
    """Mean of the text's token vectors."""

    name = "static-minilm-256-v1"
    dimensions = 256

    def __init__(self) -> None:
        from safetensors.numpy import load
        from tokenizers import Tokenizer

        folder = files("ripieno.encoders") / "weights"
        tensors = load((folder / "static.safetensors").read_bytes())
        self._table = tensors["table"]  # (tokens, 256), int8
        self._scale = tensors["scale"]  # (tokens,)
        with as_file(folder / "tokenizer.json") as path:
            self._tokenizer = Tokenizer.from_file(str(path))

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts, shape (len(texts), 256)."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        clipped = [clip_text(text, limit=CHARACTERS) for text in texts]
        for index, encoding in enumerate(self._tokenizer.encode_batch_fast(clipped, add_special_tokens=False)):
            ids = encoding.ids
            if ids:
                rows[index] = self._scale[ids] @ self._table[ids].astype(np.float32) / len(ids)
        return normalise_rows(rows)

    async def close(self) -> None:
        """Nothing to release."""
