"""Hashed words and word pairs: the input of TF-IDF features, without a stored vocabulary.

Source:
    Weinberger et al. (2009), Feature hashing for large scale multitask learning.
"""

import re
import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ripieno.domain import Vector
from ripieno.domain.features import TERM_BUCKETS

PAIR_FACTOR = np.uint64(0x9E3779B1)
"""Odd, and near 2^32 over the golden ratio: mixes the first word's hash into all bits (Knuth, vol. 3, section 6.4)."""

WORDS = 50_000
"""Words whose hashes are cached."""

_WORD = re.compile(r"\w+|[^\w\s]")


def hash_terms(text: str) -> tuple[npt.NDArray[np.int64], Vector]:
    """Count hashed words and pairs of neighbouring words. A pair's hash combines the hashes of its words.

    Returns:
        Ascending bucket numbers, shape (t,), and log(1 + count) of each, shape (t,).
    """
    words = np.array(list(map(_hash_word, _WORD.findall(text.lower()))), dtype=np.uint64)
    pairs = words[:-1] * PAIR_FACTOR + words[1:]
    places = (np.concatenate([words, pairs]) % TERM_BUCKETS).astype(np.int64)
    counts = np.bincount(places, minlength=TERM_BUCKETS)
    buckets = np.flatnonzero(counts)
    return buckets, np.log1p(counts[buckets]).astype(np.float32)


@lru_cache(maxsize=WORDS)
def _hash_word(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))
