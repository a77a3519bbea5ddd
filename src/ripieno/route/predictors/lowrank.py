"""Low-rank ridge: linear deviations, shrunk along the directions in which workers vary together."""

from collections.abc import Sequence

import numpy as np

from ripieno.domain import Matrix
from ripieno.route.predictors.regressors import ArrayRegressor, RidgeRegressor, shrunk_means

PRECISIONS = np.geomspace(0.3, 3000.0, 20)


class LowRankRegressor(ArrayRegressor):
    """Ridge on the principal directions of the workers' deviations, each with its own precision.

    A direction that the text does not predict (luck of single workers) is shrunk to zero; one that it predicts is kept.
    Generalised cross-validation chooses each precision.

    Source:
        Breiman & Friedman (1997), Predicting multivariate responses in multiple linear regression (curds and whey);
        Golub, Heath & Wahba (1979), for the cross-validation.
    """

    def fit(self, z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> None:
        """Fit all directions and precisions with one eigendecomposition of the tasks' Gram matrix."""
        base, centre = shrunk_means(y), z.mean(axis=0)
        deviations = _fill(z, y, kinds) - base
        _, directions = np.linalg.eigh(deviations.T @ deviations)
        targets, design = deviations @ directions, z - centre
        values, axes = np.linalg.eigh(design.T @ design)
        values = np.maximum(values, 0.0)
        moments = axes.T @ (design.T @ targets)  # (d, m)
        best = _choose_precisions(values, moments, np.sum(targets**2, axis=0), tasks=len(z))
        shrinkage = np.where(np.isinf(best), 0.0, 1.0 / (values[:, None] + best))
        self._arrays = {"base": base, "centre": centre, "weights": axes @ (shrinkage * moments) @ directions.T}


def _choose_precisions(values: Matrix, moments: Matrix, totals: Matrix, *, tasks: int) -> Matrix:
    """Choose the precision of each direction, shape (m,), infinite if the mean predicts better than any line."""
    explained = np.where(values[:, None] > 1e-9, moments**2 / np.maximum(values[:, None], 1e-9), 0.0)
    scores = [totals / (1.0 - 1.0 / tasks) ** 2 if tasks > 1 else totals]
    for precision in PRECISIONS:
        kept = values / (values + precision)
        left = totals - ((2.0 * kept - kept**2)[:, None] * explained).sum(axis=0)
        scores.append(left / max(1.0 - (kept.sum() + 1.0) / tasks, 1e-3) ** 2)
    return np.asarray(np.concatenate([[np.inf], PRECISIONS])[np.argmin(np.stack(scores), axis=0)])


def _fill(z: Matrix, y: Matrix, kinds: Sequence[str | None]) -> Matrix:
    """Fill unmeasured pairs with the prediction of a plain ridge."""
    missing = np.isnan(y)
    if not missing.any():
        return y
    plain = RidgeRegressor()
    plain.fit(z, y, kinds)
    return np.where(missing, plain.predict(z), y)
