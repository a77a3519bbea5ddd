"""Featurizer: features to one dense vector, the part of a predictor that does not depend on outcomes."""

from collections.abc import Sequence

import numpy as np

from ripieno.domain import Features, Matrix
from ripieno.domain.features import TERM_BUCKETS
from ripieno.plugins import needs_extra
from ripieno.route.predictors.regressors import Arrays, unit

TERM_WEIGHT = 0.7
SHAPE_WEIGHT = 0.1
TOOL_WEIGHT = 0.3
"""Weights of the blocks, relative to the embedding's 1.0, chosen by the out-of-fold error on five outcome sets."""
MAX_TOPICS = 64


class Featurizer:
    """Concatenates centred embedding, TF-IDF topics, and standardised shape of text and tools.

    Source:
        Deerwester et al. (1990), latent semantic analysis, for the topics.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = dict(arrays)
        self._mean = self.arrays["mean"]
        self._topics = self.arrays["topics"]  # (TERM_BUCKETS, k): idf-weighted components
        self._idf = self.arrays["idf"]
        self._shape_mean, self._shape_scale = self.arrays["shape_mean"], self.arrays["shape_scale"]
        self._tool_mean, self._tool_scale = self.arrays["tool_mean"], self.arrays["tool_scale"]

    @classmethod
    def fit(cls, features: Sequence[Features]) -> "Featurizer":
        """Learn means, idf weights and topics from the training tasks."""
        embeddings = np.stack([item.embedding for item in features])
        shapes = np.stack([item.shape for item in features])
        tools = np.stack([item.tool_shape for item in features])
        counts = np.zeros(TERM_BUCKETS)
        for item in features:
            counts[item.terms] += 1
        idf = np.log((1 + len(features)) / (1 + counts)) + 1
        return cls(
            {
                "mean": embeddings.mean(axis=0).astype(np.float32),
                "idf": idf.astype(np.float32),
                "topics": _fit_topics(features, idf).astype(np.float32),
                "shape_mean": shapes.mean(axis=0).astype(np.float32),
                "shape_scale": (shapes.std(axis=0) + 1e-6).astype(np.float32),
                "tool_mean": tools.mean(axis=0).astype(np.float32),
                "tool_scale": (tools.std(axis=0) + 1e-6).astype(np.float32),
            }
        )

    def transform(self, features: Sequence[Features]) -> Matrix:
        """Make the dense vectors, shape (len(features), d)."""
        embeddings = np.stack([item.embedding for item in features]) - self._mean
        shapes = (np.stack([item.shape for item in features]) - self._shape_mean) / self._shape_scale
        tools = (np.stack([item.tool_shape for item in features]) - self._tool_mean) / self._tool_scale
        topics = np.stack([self._project(item) for item in features])
        blocks = (
            unit(embeddings),
            TERM_WEIGHT * unit(topics),
            SHAPE_WEIGHT * np.maximum(np.minimum(shapes, 3.0), -3.0),
            TOOL_WEIGHT * np.maximum(np.minimum(tools, 3.0), -3.0),
        )
        return np.concatenate(blocks, axis=1).astype(np.float64)

    def _project(self, item: Features) -> np.ndarray:
        weights = item.term_counts * self._idf[item.terms]
        return np.asarray(weights @ self._topics[item.terms])


def _fit_topics(features: Sequence[Features], idf: np.ndarray) -> np.ndarray:
    with needs_extra("train", "training a router"):
        from scipy.sparse import csr_matrix
        from sklearn.decomposition import TruncatedSVD
        from sklearn.preprocessing import normalize

    columns = np.concatenate([item.terms for item in features]) if features else np.zeros(0, dtype=np.int64)
    values = np.concatenate([item.term_counts for item in features]) * idf[columns]
    rows = np.repeat(np.arange(len(features)), [len(item.terms) for item in features])
    matrix = normalize(csr_matrix((values, (rows, columns)), shape=(len(features), TERM_BUCKETS)))
    size = max(1, min(MAX_TOPICS, len(features) // 4))
    if len(features) < 8 or not matrix.nnz:
        return np.zeros((TERM_BUCKETS, 1))
    svd = TruncatedSVD(size, n_iter=4, random_state=0).fit(matrix)
    return np.asarray(svd.components_.T)
