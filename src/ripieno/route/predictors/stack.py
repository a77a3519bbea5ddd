"""The default regressor: a part common to all workers, and a part relative to it, each a mix of simple regressors.

    y = mean of the worker + common(task) + relative(task, worker)

The difficulty of a task causes most of the error, but changes no choice. With one set of weights for both parts, the
difficulty would determine how the relative part is predicted.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ripieno.domain import Matrix
from ripieno.plugins import needs_extra
from ripieno.route.predictors.kinds import KindRegressor
from ripieno.route.predictors.lowrank import LowRankRegressor
from ripieno.route.predictors.regressors import Arrays, ClusterRegressor, KnnRegressor, Regressor, shrunk_means

Folds = Sequence[tuple[np.ndarray, np.ndarray]]

COMMON: Mapping[str, Callable[[], Regressor]] = {"lowrank": LowRankRegressor, "knn": KnnRegressor}
RELATIVE: Mapping[str, Callable[[], Regressor]] = {
    "lowrank": LowRankRegressor,
    "knn": KnnRegressor,
    "clusters": ClusterRegressor,
    "kinds": KindRegressor,
}


class Mix:
    """Non-negative mix of regressors, weighted by their out-of-fold predictions.

    Source:
        Breiman (1996), Stacked regressions, for the non-negative weights on out-of-fold predictions.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Regressor]]) -> None:
        self._makers = makers
        self.members = {name: make() for name, make in makers.items()}
        self._arrays: dict[str, np.ndarray] = {}

    @property
    def weights(self) -> dict[str, float]:
        """Return the share of each member."""
        return dict(zip(self.members, self._arrays["mix"].tolist(), strict=True))

    def cross_fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None], folds: Folds) -> Matrix:
        """Set the mix by out-of-fold predictions, and return those of the mix, shape (n, m)."""
        with needs_extra("train", "training a router"):
            from scipy.optimize import nnls

        base, known = shrunk_means(y), ~np.isnan(y)
        held_out = {name: cross_predict(make, z, y, kinds, folds) for name, make in self._makers.items()}
        columns = [(predicted - base)[known] for predicted in held_out.values()]
        weights, _ = nnls(np.stack(columns, axis=1), (y - base)[known])
        self._arrays = {"base": base, "mix": np.asarray(weights)}
        return self._blend(held_out, len(z))

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Fit every member on all tasks. The shares are equal unless `cross_fit` has set them."""
        for member in self.members.values():
            member.fit(z, y, kinds)
        if "mix" not in self._arrays:
            self._arrays = {"base": shrunk_means(y), "mix": np.full(len(self.members), 1.0 / len(self.members))}

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m), without members that have no share."""
        asked = {name: self.members[name].predict(z) for name, weight in self.weights.items() if weight > 0.0}
        return self._blend(asked, len(z))

    def state(self) -> dict[str, np.ndarray]:
        """Return the learned arrays of the mix and of every member with a share."""
        arrays = dict(self._arrays)
        for name, weight in self.weights.items():
            if weight > 0.0:
                arrays |= {f"{name}.{key}": value for key, value in self.members[name].state().items()}
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Restore learned arrays."""
        self._arrays = {key: arrays[key] for key in ("base", "mix")}
        for name, weight in self.weights.items():
            if weight > 0.0:
                self.members[name].restore(_under(f"{name}.", arrays))

    def _blend(self, predictions: Mapping[str, Matrix], tasks: int) -> Matrix:
        base, weights = self._arrays["base"], self.weights
        blended = np.tile(base, (tasks, 1))
        for name, predicted in predictions.items():
            blended += weights[name] * (predicted - base)
        return blended


class StackRegressor:
    """Common and relative part, each a mix."""

    def __init__(self) -> None:
        self.common, self.relative = Mix(COMMON), Mix(RELATIVE)

    def cross_fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None], folds: Folds) -> Matrix:
        """Set both mixes, and return out-of-fold predictions, shape (n, m)."""
        common, relative = split_common(y)
        expected = self.common.cross_fit(z, common, kinds, folds)
        return np.asarray(expected + self.relative.cross_fit(z, relative, kinds, folds))

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Fit both parts on all tasks."""
        common, relative = split_common(y)
        self.common.fit(z, common, kinds)
        self.relative.fit(z, relative, kinds)

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        return np.asarray(self.common.predict(z) + self.relative.predict(z))

    def state(self) -> dict[str, np.ndarray]:
        """Return the learned arrays of both parts."""
        parts = (("common", self.common), ("relative", self.relative))
        return {f"{part}.{key}": value for part, mix in parts for key, value in mix.state().items()}

    def restore(self, arrays: Arrays) -> None:
        """Restore learned arrays."""
        self.common.restore(_under("common.", arrays))
        self.relative.restore(_under("relative.", arrays))


def split_common(y: Matrix) -> tuple[Matrix, Matrix]:
    """Split targets into the part common to all workers, shape (n, 1), and the rest, shape (n, m), NaN if unknown."""
    known = ~np.isnan(y)
    deviations = np.where(known, y - shrunk_means(y), 0.0)
    common = deviations.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return common, y - common


def cross_predict(
    make: Callable[[], Regressor], z: Matrix, y: Matrix, kinds: Sequence[str | None], folds: Folds
) -> Matrix:
    """Predict each fold by a regressor fitted to the others, shape (n, m)."""

    def predict(train: np.ndarray, test: np.ndarray) -> Matrix:
        member = make()
        member.fit(z[train], y[train], [kinds[int(row)] for row in train])
        return member.predict(z[test])

    return predict_folds(y, folds, predict)


def predict_folds(y: Matrix, folds: Folds, predict: Callable[[np.ndarray, np.ndarray], Matrix]) -> Matrix:
    """Collect the predictions of held-out rows by a fit on the other rows, shape (n, m); elsewhere shrunk means.

    Args:
        y: targets, shape (n, m), NaN if unknown.
        folds: rows to learn from, and held-out rows.
        predict: fits to the former, and predicts the latter.
    """
    held_out = np.tile(shrunk_means(y), (len(y), 1))
    for train, test in folds:
        held_out[test] = predict(train, test)
    return held_out


def _under(prefix: str, arrays: Arrays) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
