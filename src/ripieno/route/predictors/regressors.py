"""Shrunk regressors over (task, worker) pairs: from task vectors to one number for each worker.

Each is closed form, pulls towards the worker's own mean where it knows little, and keeps a separate row for each
worker, so that a worker can be left unmeasured on some tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ripieno.domain import Matrix
from ripieno.domain.training import column_means

Arrays = Mapping[str, np.ndarray]


class Regressor(Protocol):
    """Predicts one number for each (task, worker) pair."""

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Learn from task vectors z, shape (n, d), and targets y, shape (n, m), NaN where unknown."""
        ...

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """The learned arrays."""
        ...

    def restore(self, arrays: Arrays) -> None:
        """Take learned arrays back."""
        ...


def shrunk_means(y: Matrix, *, prior_count: float = 5.0) -> Matrix:
    """Worker means, pulled towards the pool's mean as if `prior_count` samples had shown it; shape (m,)."""
    counts = (~np.isnan(y)).sum(axis=0)
    means = column_means(y)
    pool = float(np.nanmean(means)) if counts.any() else 0.0
    return np.asarray((np.nan_to_num(means) * counts + pool * prior_count) / (counts + prior_count))


class RidgeRegressor:
    """Linear deviations from the worker's mean: beta_w ~ N(0, 1 / precision) on centred task vectors."""

    def __init__(self, *, precision: float = 30.0) -> None:
        self.precision = precision
        self._arrays: dict[str, np.ndarray] = {}

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Solve the normal equations, once for all workers that share their measured tasks."""
        base, centre = shrunk_means(y), z.mean(axis=0)
        known = ~np.isnan(y)
        weights = np.zeros((z.shape[1], y.shape[1]))
        patterns, which = np.unique(known, axis=1, return_inverse=True)
        for index in range(patterns.shape[1]):
            rows, columns = patterns[:, index], np.flatnonzero(which.ravel() == index)
            design = z[rows] - centre
            gram = design.T @ design + self.precision * np.eye(z.shape[1])
            weights[:, columns] = np.linalg.solve(gram, design.T @ (y[np.ix_(rows, columns)] - base[columns]))
        self._arrays = {"base": base, "centre": centre, "weights": weights}

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        return np.asarray(self._arrays["base"] + (z - self._arrays["centre"]) @ self._arrays["weights"])

    def state(self) -> dict[str, np.ndarray]:
        """The learned arrays."""
        return self._arrays

    def restore(self, arrays: Arrays) -> None:
        """Take learned arrays back."""
        self._arrays = dict(arrays)


class KnnRegressor:
    """Mean deviation of the nearest tasks, weighted by closeness, shrunk by how many effectively count.

    Source:
        Li (2025), Rethinking predictive modeling for LLM routing: when simple kNN beats complex learned routers.
    """

    def __init__(self, *, neighbours: int = 80, temperature: float = 0.1, prior_count: float = 20.0) -> None:
        self.neighbours = neighbours
        self.temperature = temperature
        self.prior_count = prior_count
        self._arrays: dict[str, np.ndarray] = {}

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Keep the unit vectors of the tasks and their deviations."""
        base = shrunk_means(y)
        deviations = np.where(np.isnan(y), np.nan, y - base).astype(np.float32)
        self._arrays = {"base": base, "rows": _unit(z).astype(np.float32), "deviations": deviations}

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        rows, deviations = self._arrays["rows"], self._arrays["deviations"]
        unit = _unit(z).astype(np.float32)
        out = np.empty((len(z), deviations.shape[1]))
        for start in range(0, len(z), 512):
            out[start : start + 512] = self._predict_batch(unit[start : start + 512] @ rows.T, deviations)
        return np.asarray(self._arrays["base"] + out)

    def state(self) -> dict[str, np.ndarray]:
        """The learned arrays."""
        return self._arrays

    def restore(self, arrays: Arrays) -> None:
        """Take learned arrays back."""
        self._arrays = dict(arrays)

    def _predict_batch(self, closeness: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        size = min(self.neighbours, closeness.shape[1])
        nearest = np.argpartition(-closeness, size - 1, axis=1)[:, :size]
        near = np.take_along_axis(closeness, nearest, axis=1)
        weights = np.exp((near - near.max(axis=1, keepdims=True)) / self.temperature)
        values = deviations[nearest]  # (k, size, m)
        seen = weights[:, :, None] * ~np.isnan(values)
        total = seen.sum(axis=1)
        effective = total**2 / np.maximum((seen**2).sum(axis=1), 1e-12)
        mean = (seen * np.nan_to_num(values)).sum(axis=1) / np.maximum(total, 1e-12)
        return np.asarray(mean * effective / (effective + self.prior_count))


class ClusterRegressor:
    """Mean deviation of soft clusters of tasks, each shrunk to nothing until it has seen enough.

    Source:
        Zhang et al. (2025), Avengers-Pro, for routing by clusters; the shrinkage is ours.
    """

    def __init__(self, *, clusters: int = 32, temperature: float = 0.05, prior_count: float = 10.0) -> None:
        self.clusters = clusters
        self.temperature = temperature
        self.prior_count = prior_count
        self._arrays: dict[str, np.ndarray] = {}

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Cluster the tasks, then average the deviations of each cluster."""
        from sklearn.cluster import KMeans

        unit = _unit(z)
        distinct = len(np.unique(unit.round(9), axis=0))
        size = max(1, min(self.clusters, len(z) // 8, distinct))
        centres = _unit(KMeans(size, n_init=3, random_state=0).fit(unit).cluster_centers_)
        self._arrays = {"base": shrunk_means(y), "centres": centres}
        self._arrays["effects"] = shrunk_effects(self._weigh(z), y, prior_count=self.prior_count)

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        return np.asarray(self._arrays["base"] + self._weigh(z) @ self._arrays["effects"])

    def state(self) -> dict[str, np.ndarray]:
        """The learned arrays."""
        return self._arrays

    def restore(self, arrays: Arrays) -> None:
        """Take learned arrays back."""
        self._arrays = dict(arrays)

    def _weigh(self, z: Matrix) -> Matrix:
        return _softmax(_unit(z) @ self._arrays["centres"].T / self.temperature)


class KindRegressor:
    """Mean deviation of each labelled kind of task, weighted by how likely the task is of that kind.

    The kind is inferred from the text, never read from the task: a ridge classifier stands in for the label.
    """

    def __init__(self, *, precision: float = 3.0, temperature: float = 0.15, prior_count: float = 10.0) -> None:
        self.precision = precision
        self.temperature = temperature
        self.prior_count = prior_count
        self._classifier = RidgeRegressor(precision=precision)
        self._arrays: dict[str, np.ndarray] = {}

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Fit the classifier of kinds, then average the deviations of each kind."""
        names = sorted({kind for kind in kinds if kind is not None})
        labels = np.array([[float(kind == name) for name in names] for kind in kinds]).reshape(len(kinds), len(names))
        if len(names) > 1:
            self._classifier.fit(z, labels, kinds)
        else:
            labels = np.ones((len(z), 1))
        self._arrays = {"base": shrunk_means(y), "effects": shrunk_effects(labels, y, prior_count=self.prior_count)}

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        effects = self._arrays["effects"]
        shares = np.ones((len(z), 1))
        if len(effects) > 1:
            shares = _softmax(self._classifier.predict(z) / self.temperature)
        return np.asarray(self._arrays["base"] + shares @ effects)

    def state(self) -> dict[str, np.ndarray]:
        """The learned arrays."""
        return {**self._arrays, **{f"classifier.{name}": value for name, value in self._classifier.state().items()}}

    def restore(self, arrays: Arrays) -> None:
        """Take learned arrays back."""
        prefix = "classifier."
        self._arrays = {name: value for name, value in arrays.items() if not name.startswith(prefix)}
        self._classifier.restore({n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)})


class StackRegressor:
    """Non-negative mix of the others, weighted by how well each predicts tasks that it has not seen.

    Source:
        Breiman (1996), Stacked regressions, for the non-negative weights on out-of-fold predictions.
    """

    def __init__(self) -> None:
        self.members: dict[str, Regressor] = {
            "ridge": RidgeRegressor(),
            "knn": KnnRegressor(),
            "clusters": ClusterRegressor(),
            "kinds": KindRegressor(),
        }
        self._arrays: dict[str, np.ndarray] = {}

    def weigh(self, out_of_fold: Mapping[str, Matrix], y: Matrix) -> None:
        """Set the mix from out-of-fold predictions of each member, each of y's shape."""
        from scipy.optimize import nnls

        base, known = shrunk_means(y), ~np.isnan(y)
        columns = [(out_of_fold[name] - base)[known] for name in self.members]
        weights, _ = nnls(np.stack(columns, axis=1), (y - base)[known])
        self._arrays = {"base": base, "mix": np.asarray(weights)}

    def mix(self, predictions: Mapping[str, Matrix]) -> Matrix:
        """Combine the members' predictions."""
        base = self._arrays["base"]
        parts = [w * (predictions[n] - base) for n, w in zip(self.members, self._arrays["mix"], strict=True) if w > 0]
        return np.asarray(base + sum(parts, np.zeros((1, len(base)))))

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Fit every member; the mix is equal shares unless `weigh` has set it."""
        for member in self.members.values():
            member.fit(z, y, kinds)
        if "mix" not in self._arrays:
            self._arrays = {"base": shrunk_means(y), "mix": np.full(len(self.members), 1.0 / len(self.members))}

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        used = {n: w for n, w in zip(self.members, self._arrays["mix"], strict=True) if w > 0}
        predictions = {name: self.members[name].predict(z) for name in used}
        return np.broadcast_to(self.mix(predictions), (len(z), len(self._arrays["base"]))).copy()

    def state(self) -> dict[str, np.ndarray]:
        """The learned arrays of the mix and of every member."""
        arrays = dict(self._arrays)
        for name, member in self.members.items():
            arrays |= {f"{name}.{key}": value for key, value in member.state().items()}
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Take learned arrays back."""
        self._arrays = {key: arrays[key] for key in ("base", "mix")}
        for name, member in self.members.items():
            prefix = f"{name}."
            member.restore({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})


def shrunk_effects(shares: Matrix, y: Matrix, *, prior_count: float) -> Matrix:
    """Mean deviation from the worker's mean within each soft group, pulled towards zero.

    Args:
        shares: how much of each task belongs to each group, shape (n, g).
        y: targets, shape (n, m), NaN where unknown.
        prior_count: as many samples as this, all at zero, are added to each cell.

    Returns:
        Shape (g, m).
    """
    known = ~np.isnan(y)
    deviations = np.where(known, y - shrunk_means(y), 0.0)
    return np.asarray((shares.T @ deviations) / (shares.T @ known.astype(np.float64) + prior_count))


def _unit(matrix: Matrix) -> Matrix:
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9))


def _softmax(logits: Matrix) -> Matrix:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
