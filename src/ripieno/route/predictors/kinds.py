"""Kinds: effects of labelled kinds of tasks. The kind is inferred from the text, and never read from the task."""

from collections.abc import Sequence

import numpy as np

from ripieno.domain import Matrix
from ripieno.plugins import needs_extra
from ripieno.route.predictors.regressors import ArrayRegressor, shrunk_effects, shrunk_means, softmax

SHARPNESS = 3.0
"""Factor of the task vectors before the classifier, whose penalty is too strong for vectors of length near one."""


class KindRegressor(ArrayRegressor):
    """Mean deviation of each labelled kind of task, weighted by the probability of the kind."""

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Fit the classifier of kinds, then average the deviations of each kind."""
        names = sorted({kind or "" for kind in kinds})
        which = np.array([names.index(kind or "") for kind in kinds])
        self._arrays = {"base": shrunk_means(y), "effects": shrunk_effects(np.eye(len(names))[which], y)}
        if len(names) > 1:
            weights, offsets = fit_softmax(SHARPNESS * z, which, len(names))
            self._arrays |= {"weights": weights, "offsets": offsets}

    def predict(self, z: Matrix) -> Matrix:
        """Predict, shape (len(z), m)."""
        return np.asarray(self._arrays["base"] + self.classify(z) @ self._arrays["effects"])

    def classify(self, z: Matrix) -> Matrix:
        """Return the probability of each kind, shape (len(z), g), kinds in alphabetical order."""
        if "weights" not in self._arrays:
            return np.ones((len(z), 1))
        return softmax(SHARPNESS * z @ self._arrays["weights"] + self._arrays["offsets"])


def fit_softmax(z: Matrix, which: "np.ndarray", groups: int) -> tuple[Matrix, Matrix]:
    """Fit a multinomial logistic regression; return weights, shape (d, groups), and offsets, shape (groups,)."""
    with needs_extra("train", "training a router"):
        from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, max_iter=200, tol=1e-3).fit(z, which)
    if groups == 2:
        half = model.coef_[0] / 2.0, model.intercept_[0] / 2.0
        return np.stack([-half[0], half[0]], axis=1), np.array([-half[1], half[1]])
    return np.asarray(model.coef_.T), np.asarray(model.intercept_)
