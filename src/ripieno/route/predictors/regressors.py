"""Shrunk regressors over (task, worker) pairs: from task vectors to one number for each worker.

Each has a closed form, shrinks towards the worker's own mean, and fits each worker separately, so that a worker may be
unmeasured on some tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ripieno.domain import Matrix
from ripieno.domain.training import column_means
from ripieno.plugins import needs_extra

Arrays = Mapping[str, np.ndarray]

PRIOR_COUNT = 5.0
LEAST_CELL = 3.0
LEAST_PRIOR_COUNT, MOST_PRIOR_COUNT = 2.0, 200.0
"""Bounds of the estimated shrinkage, in samples, because the estimate is noisy on small sets."""
PRECISION = 30.0
"""Prior precision of a ridge's slopes."""
NEIGHBOURS, NEIGHBOUR_TEMPERATURE, NEIGHBOUR_PRIOR_COUNT = 80, 0.1, 20.0
CLUSTERS = 32
CLUSTER_TEMPERATURE = 0.05


class Regressor(Protocol):
    """Predicts one number for each (task, worker) pair."""

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Learn from task vectors z, shape (n, d), and targets y, shape (n, m), NaN if unknown."""
        ...

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return the learned arrays."""
        ...

    def restore(self, arrays: Arrays) -> None:
        """Restore learned arrays."""
        ...


class ArrayRegressor:
    """A regressor whose whole state is its learned arrays. The default prediction is linear."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        return np.asarray(self._arrays["base"] + (z - self._arrays["centre"]) @ self._arrays["weights"])

    def state(self) -> dict[str, np.ndarray]:
        """Return the learned arrays."""
        return self._arrays

    def restore(self, arrays: Arrays) -> None:
        """Restore learned arrays."""
        self._arrays = dict(arrays)


def shrunk_means(y: Matrix) -> Matrix:
    """Average each worker, shrunk towards the pool's mean as if `PRIOR_COUNT` samples had shown it; shape (m,)."""
    counts = (~np.isnan(y)).sum(axis=0)
    means = column_means(y)
    pool = float(np.nanmean(means)) if counts.any() else 0.0
    return np.asarray((np.nan_to_num(means) * counts + pool * PRIOR_COUNT) / (counts + PRIOR_COUNT))


class RidgeRegressor(ArrayRegressor):
    """Linear deviations from the worker's mean: beta_w ~ N(0, 1 / precision) on centred task vectors."""

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Solve the normal equations, once for all workers with the same measured tasks."""
        base, centre = shrunk_means(y), z.mean(axis=0)
        known = ~np.isnan(y)
        weights = np.zeros((z.shape[1], y.shape[1]))
        patterns, which = np.unique(known, axis=1, return_inverse=True)
        for index in range(patterns.shape[1]):
            rows, columns = patterns[:, index], np.flatnonzero(which.ravel() == index)
            design = z[rows] - centre
            gram = design.T @ design + PRECISION * np.eye(z.shape[1])
            weights[:, columns] = np.linalg.solve(gram, design.T @ (y[np.ix_(rows, columns)] - base[columns]))
        self._arrays = {"base": base, "centre": centre, "weights": weights}


class KnnRegressor(ArrayRegressor):
    """Mean deviation of the nearest tasks, weighted by closeness, shrunk by their effective number.

    Source:
        Li (2025), Rethinking predictive modeling for LLM routing: when simple kNN beats complex learned routers.
    """

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Store the unit vectors of the tasks and their deviations."""
        base = shrunk_means(y)
        deviations = np.where(np.isnan(y), np.nan, y - base).astype(np.float32)
        self._arrays = {"base": base, "rows": unit(z).astype(np.float32), "deviations": deviations}

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        rows, deviations = self._arrays["rows"], self._arrays["deviations"]
        queries = unit(z).astype(np.float32)
        out = np.empty((len(z), deviations.shape[1]))
        for start in range(0, len(z), 512):
            out[start : start + 512] = self._predict_batch(queries[start : start + 512] @ rows.T, deviations)
        return np.asarray(self._arrays["base"] + out)

    def _predict_batch(self, closeness: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        size = min(NEIGHBOURS, closeness.shape[1])
        nearest = np.argpartition(-closeness, size - 1, axis=1)[:, :size]
        near = np.take_along_axis(closeness, nearest, axis=1)
        weights = np.exp((near - near.max(axis=1, keepdims=True)) / NEIGHBOUR_TEMPERATURE)
        values = deviations[nearest]  # (k, size, m)
        seen = weights[:, :, None] * ~np.isnan(values)
        total = seen.sum(axis=1)
        effective = total**2 / np.maximum((seen**2).sum(axis=1), 1e-12)
        mean = (seen * np.nan_to_num(values)).sum(axis=1) / np.maximum(total, 1e-12)
        return np.asarray(mean * effective / (effective + NEIGHBOUR_PRIOR_COUNT))


class ClusterRegressor(ArrayRegressor):
    """Mean deviation of soft clusters of tasks, each shrunk to zero if it has few outcomes.

    Source:
        Zhang et al. (2025), Avengers-Pro, for routing by clusters; the shrinkage is ours.
    """

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Cluster the tasks, then average the deviations of each cluster."""
        with needs_extra("train", "training a router"):
            from sklearn.cluster import KMeans

        rows = unit(z)
        distinct = len(np.unique(rows.round(9), axis=0))
        size = max(1, min(CLUSTERS, len(z) // 8, distinct))
        centres = unit(KMeans(size, n_init=3, random_state=0).fit(rows).cluster_centers_)
        self._arrays = {"base": shrunk_means(y), "centres": centres}
        self._arrays["effects"] = shrunk_effects(self._weigh(z), y)

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        return np.asarray(self._arrays["base"] + self._weigh(z) @ self._arrays["effects"])

    def _weigh(self, z: Matrix) -> Matrix:
        return softmax(unit(z) @ self._arrays["centres"].T / CLUSTER_TEMPERATURE)


def shrunk_effects(shares: Matrix, y: Matrix) -> Matrix:
    """Average the deviations from the worker's mean within each soft group, shrunk towards zero.

    The data determine the shrinkage: `estimate_prior_count` samples, all at zero, are added to each cell.

    Args:
        shares: share of each task in each group, shape (n, g).
        y: targets, shape (n, m), NaN if unknown.

    Returns:
        Shape (g, m).
    """
    known = ~np.isnan(y)
    deviations = np.where(known, y - shrunk_means(y), 0.0)
    counts = shares.T @ known.astype(np.float64)
    sums = shares.T @ deviations
    means = sums / np.maximum(counts, 1e-9)
    within = float((((deviations - shares @ means) * known) ** 2).sum()) / max(float(known.sum()) - means.size, 1.0)
    return np.asarray(sums / (counts + estimate_prior_count(means, counts, within=within)))


def estimate_prior_count(means: Matrix, counts: Matrix, *, within: float) -> float:
    """Estimate the samples that the prior "no effect" counts for: variance within cells over variance between them.

    Source:
        Efron & Morris (1975), Data analysis using Stein's estimator; the variance between cells by moments.
    """
    seen = counts > LEAST_CELL
    if not seen.any():
        return MOST_PRIOR_COUNT
    between = float((means[seen] ** 2 - within / counts[seen]).mean())
    return float(np.clip(within / max(between, 1e-9), LEAST_PRIOR_COUNT, MOST_PRIOR_COUNT))


def unit(matrix: np.ndarray) -> Matrix:
    """Scale each row to length 1."""
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9))


def softmax(logits: Matrix) -> Matrix:
    """Compute the softmax of each row."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def sigmoid(x: Matrix) -> Matrix:
    """Compute the logistic function, its argument clipped to [-30, 30]."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(np.minimum(x, 30.0), -30.0))))
