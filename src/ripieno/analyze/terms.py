"""Hashed words and word pairs: what TF-IDF features are made of, without a vocabulary to keep.

Source:
    Weinberger et al. (2009), Feature hashing for large scale multitask learning.
"""

import re
import zlib

import numpy as np
import numpy.typing as npt

from ripieno.domain import Vector
from ripieno.domain.features import TERM_BUCKETS

PAIR_FACTOR = np.uint64(0x9E3779B1)
"""Odd and near 2^32 over the golden ratio: mixes the first word's hash into all bits (Knuth, vol. 3, section 6.4)."""

_WORD = re.compile(r"\w+|[^\w\s]")


def hash_terms(text: str) -> tuple[npt.NDArray[np.int64], Vector]:
    """Count hashed words and pairs of neighbours; a pair's hash is made of its words'.

    Returns:
        Ascending bucket numbers, shape (t,), and log(1 + count) of each, shape (t,).
    """
    words = np.array(
        [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in _WORD.findall(text.lower())], dtype=np.uint64
    )
    pairs = words[:-1] * PAIR_FACTOR + words[1:]
    buckets, counts = np.unique(np.concatenate([words, pairs]) % TERM_BUCKETS, return_counts=True)
    return buckets.astype(np.int64), np.log1p(counts).astype(np.float32)
