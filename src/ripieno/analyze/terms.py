"""Hashed words and word pairs: what TF-IDF features are made of, without a vocabulary to keep.

Source:
    Weinberger et al. (2009), Feature hashing for large scale multitask learning.
"""

import re
import zlib
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ripieno.domain import Vector
from ripieno.domain.features import TERM_BUCKETS

_WORD = re.compile(r"\w+|[^\w\s]")


def hash_terms(text: str) -> tuple[npt.NDArray[np.int64], Vector]:
    """Count hashed words and pairs of neighbours.

    Returns:
        Ascending bucket numbers, shape (t,), and log(1 + count) of each, shape (t,).
    """
    words = _WORD.findall(text.lower())
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    hashed = [zlib.crc32(term.encode("utf-8", "surrogatepass")) % TERM_BUCKETS for term in (*words, *pairs)]
    buckets, counts = np.unique(np.array(hashed, dtype=np.int64), return_counts=True)
    return buckets, np.log1p(counts).astype(np.float32)
