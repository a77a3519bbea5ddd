"""Regressors of the literature, for comparison: factors, logistic heads, boosted trees."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from ripieno.domain import Matrix
from ripieno.plugins import needs_extra
from ripieno.route.predictors.regressors import ArrayRegressor, RidgeRegressor, shrunk_means, sigmoid

SEED = 0
FACTORS = 4
"""Rank of the factorisation."""
ROUNDS = 100
"""Boosted trees."""
DIRECTIONS = 48
"""Leading directions of the task vectors that the trees see."""


class FactorRegressor(ArrayRegressor):
    """Matrix factorisation: tasks and workers in one space of few dimensions.

    The factors are those of the ridge solution, the best of that rank for its fitted values.

    Source:
        Ong et al. (2024), RouteLLM, for the bilinear form; Izenman (1975), Reduced-rank regression.
    """

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Fit a ridge, then keep the leading directions of its fitted values."""
        ridge = RidgeRegressor()
        ridge.fit(z, y, kinds)
        learned = ridge.state()
        _, _, directions = np.linalg.svd((z - learned["centre"]) @ learned["weights"], full_matrices=False)
        workers = directions[:FACTORS].T  # (m, r)
        self._arrays = {
            "base": learned["base"],
            "centre": learned["centre"],
            "tasks": learned["weights"] @ workers,
            "workers": workers,
        }

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        arrays = self._arrays
        return np.asarray(arrays["base"] + (z - arrays["centre"]) @ arrays["tasks"] @ arrays["workers"].T)


class LogisticRegressor(ArrayRegressor):
    """One logistic head per worker; graded quality counts as that share of a success."""

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Fit each head on the measured tasks of its worker."""
        means = shrunk_means(y)
        weights = np.zeros((z.shape[1], y.shape[1]))
        offsets = np.log(np.clip(means, 0.01, 0.99) / (1.0 - np.clip(means, 0.01, 0.99)))
        for column in range(y.shape[1]):
            known = ~np.isnan(y[:, column])
            met = y[known, column]
            if known.sum() >= 2 and met.min() < met.max():
                weights[:, column], offsets[column] = fit_shares(z[known], met, freedom=1.0)
        self._arrays = {"weights": weights, "offsets": offsets}

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        return sigmoid(z @ self._arrays["weights"] + self._arrays["offsets"])


class BoostingRegressor(ArrayRegressor):
    """Boosted trees over (task vector, worker): one model for all pairs, as in the tutorials.

    Needs LightGBM (`pip install 'ripieno[boosting]'`); the trees are stored in its text form.
    """

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Fit on the leading directions of the task vectors, the worker's number and its mean."""
        lightgbm = _import_lightgbm()
        centre = z.mean(axis=0)
        _, _, axes = np.linalg.svd(z - centre, full_matrices=False)
        self._arrays = {"base": shrunk_means(y), "centre": centre, "axes": axes[:DIRECTIONS].T}
        known = ~np.isnan(y).ravel()
        rows = lightgbm.Dataset(
            self._pairs(z)[known], y.ravel()[known], categorical_feature=[0], params={"max_bin": 63, "verbose": -1}
        )
        parameters = {
            "objective": "regression",
            "learning_rate": 0.05,
            "num_leaves": 15,
            "min_data_in_leaf": 20,
            "lambda_l2": 5.0,
            "seed": SEED,
            "deterministic": True,
            "num_threads": 1,
            "verbose": -1,
        }
        trees = lightgbm.train(parameters, rows, num_boost_round=ROUNDS)
        self._arrays["trees"] = np.frombuffer(trees.model_to_string().encode(), dtype=np.uint8).copy()

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        trees = _import_lightgbm().Booster(model_str=self._arrays["trees"].tobytes().decode())
        return np.asarray(trees.predict(self._pairs(z)).reshape(len(z), -1))

    def _pairs(self, z: Matrix) -> Matrix:
        """Return one row per pair, the workers of a task in sequence: number, mean quality, directions."""
        base = self._arrays["base"]
        tasks = (z - self._arrays["centre"]) @ self._arrays["axes"]
        workers = np.stack([np.arange(len(base)), base], axis=1)
        return np.concatenate([np.tile(workers, (len(z), 1)), np.repeat(tasks, len(base), axis=0)], axis=1)


def fit_shares(design: Matrix, y: Matrix, *, freedom: float) -> tuple[Matrix, float]:
    """Fit a logistic regression to shares y in [0, 1]; return slopes, shape (d,), and intercept."""
    with needs_extra("train", "training a router"):
        from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=freedom, max_iter=200)
    doubled = np.concatenate([design, design])
    labels = np.concatenate([np.ones(len(y)), np.zeros(len(y))])
    model.fit(doubled, labels, sample_weight=np.concatenate([y, 1.0 - y]))
    return model.coef_[0], float(model.intercept_[0])


def _import_lightgbm() -> ModuleType:
    with needs_extra("boosting", "the predictor 'boosting'", key="kind"):
        import lightgbm
    module: ModuleType = lightgbm
    return module
