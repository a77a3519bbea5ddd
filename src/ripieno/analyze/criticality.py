"""Criticality: the cost of a wrong answer and of a slow one, predicted where the caller does not state it."""

from collections.abc import Mapping, Sequence

import numpy as np

from ripieno.domain import Features, Matrix

PRECISION = 150.0


class CriticalityModel:
    """Two ridge regressions on the encoder's vector and the text's shape."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = dict(arrays)

    @classmethod
    def fit(cls, features: Sequence[Features], stated: Matrix, *, precision: float = PRECISION) -> "CriticalityModel":
        """Fit the model to tasks with judged criticalities.

        Args:
            features: features of n tasks.
            stated: mission and time criticality, shape (n, 2), in [0, 10].
            precision: strength of the shrinkage to the mean.
        """
        z = _vectors(features)
        centre, scale, base = z.mean(axis=0), z.std(axis=0) + 1e-6, stated.mean(axis=0)
        design = (z - centre) / scale / np.sqrt(z.shape[1])
        gram = design.T @ design + precision * np.eye(z.shape[1]) / z.shape[1]
        weights = np.linalg.solve(gram, design.T @ (stated - base))
        return cls({"centre": centre, "scale": scale, "base": base, "weights": weights})

    def predict(self, features: Sequence[Features]) -> Matrix:
        """Predict mission and time criticality, shape (len(features), 2), in [0, 10]."""
        arrays = self.arrays
        z = _vectors(features)
        design = (z - arrays["centre"]) / arrays["scale"] / np.sqrt(z.shape[1])
        return np.asarray(np.clip(arrays["base"] + design @ arrays["weights"], 0.0, 10.0))


def _vectors(features: Sequence[Features]) -> Matrix:
    return np.stack([np.concatenate([item.embedding, item.shape]) for item in features]).astype(np.float64)
