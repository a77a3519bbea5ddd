"""The default encoder: a static token table distilled from all-MiniLM-L6-v2, far under a millisecond per text.

The package contains the table (29,525 tokens x 256, int8), which `scripts/build_static_encoder.py` builds.

Source:
    Tulkens & van Dongen (2024), Model2Vec: distillation of sentence transformers into static vectors.
"""

import re
from collections.abc import Sequence
from importlib.resources import as_file, files

import numpy as np

from ripieno.domain import Vector
from ripieno.encoders.base import clip_text, normalise_rows

CHARACTERS = 6000
"""Characters of head and tail that are encoded: about 1,500 tokens, 1 ms."""
WORDS = 50_000
"""Words whose tokens are cached. The cache is cleared beyond this."""
WORD_CHARACTERS = 64
"""Longest cached word. Longer words are rare, and this bounds the cache."""

_SPACES = re.compile("[ \t\n\r]+")


class StaticEncoder:
    """Mean of the text's token vectors."""

    name = "static-minilm-256-v1"
    dimensions = 256

    def __init__(self) -> None:
        from kitoken import Kitoken
        from safetensors.numpy import load

        folder = files("ripieno.encoders") / "weights"
        tensors = load((folder / "static.safetensors").read_bytes())
        self._table = tensors["table"]  # (tokens, 256), int8
        self._scale = tensors["scale"]  # (tokens,)
        with as_file(folder / "tokenizer.json") as path:
            self._tokenizer = Kitoken.from_file(str(path))
        self._known: dict[str, list[int]] = {}

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts, shape (len(texts), 256)."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for index, ids in enumerate(self._tokenize([clip_text(text, limit=CHARACTERS) for text in texts])):
            if ids:
                rows[index] = self._scale[ids] @ self._table[ids].astype(np.float32) / len(ids)
        return normalise_rows(rows)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize word by word: the tokenizer never reads across a space, so words can be cached."""
        split = [_SPACES.split(text) for text in texts]
        known = self._known
        missing = {word for words in split for word in words if word not in known}
        found = {word: self._tokenizer.encode(word, False) for word in missing}
        ids = [[token for word in words for token in (known.get(word) or found.get(word, ()))] for words in split]
        if len(known) > WORDS:
            known.clear()
        known.update((word, tokens) for word, tokens in found.items() if len(word) <= WORD_CHARACTERS)
        return ids

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""
