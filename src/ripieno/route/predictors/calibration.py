"""Calibration: from raw quality to a calibrated probability.

Source:
    Kull, Silva Filho & Flach (2017), Beta calibration. Each worker's map is strictly increasing.
"""

import numpy as np

from ripieno.domain import Matrix
from ripieno.route.predictors.alternatives import fit_shares
from ripieno.route.predictors.regressors import Arrays

OFFSET_PRECISION = 25.0
"""Prior precision of a worker's offset: a standard deviation of 0.2 logits, as measured on the outcome sets."""
NEWTON_STEPS = 8
BINS = 15
EDGE = 0.005
"""Raw predictions are clipped this far from 0 and 1, because a linear head can leave the interval."""


class Calibrator:
    """One beta map for all workers, then an offset for each, which is near 0 for workers with few outcomes."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = dict(arrays)

    @classmethod
    def fit(cls, raw: Matrix, quality: Matrix) -> "Calibrator":
        """Fit to out-of-fold predictions and their outcomes, each of shape (n, m)."""
        shared = fit_beta(raw, quality)
        offsets = fit_offsets(_logit(apply_beta(shared, raw)), quality)
        return cls({"coefficients": shared, "offsets": offsets})

    def apply(self, raw: Matrix) -> Matrix:
        """Calibrate raw predictions, shape (n, m)."""
        logits = _logit(apply_beta(self.arrays["coefficients"], raw)) + self.arrays["offsets"]
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def fit_offsets(logits: Matrix, quality: Matrix) -> Matrix:
    """Fit the offset of each worker's logit, shape (m,): the mode under a normal prior, by Newton's method."""
    known = ~np.isnan(quality)
    met = np.where(known, quality, 0.0)
    offsets = np.zeros(logits.shape[1])
    for _ in range(NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-(logits + offsets)))
        gradient = ((met - p) * known).sum(axis=0) - OFFSET_PRECISION * offsets
        offsets = offsets + gradient / ((p * (1.0 - p) * known).sum(axis=0) + OFFSET_PRECISION)
    return offsets


def fit_beta(raw: Matrix, quality: Matrix) -> Matrix:
    """Fit the coefficients of `apply_beta` to out-of-fold predictions; the identity below 50 outcomes."""
    known = ~np.isnan(quality)
    p, y = np.clip(raw[known], EDGE, 1 - EDGE), quality[known]
    if len(y) >= 50 and y.min() < y.max():
        for design in (np.stack([np.log(p), -np.log1p(-p)], axis=1), np.log(p / (1 - p))[:, None]):
            slopes, intercept = fit_shares(design, y, freedom=1e3)
            if (slopes > 1e-3).all():
                return np.array([slopes[0], slopes[-1], intercept])
    return np.array([1.0, 1.0, 0.0])


def apply_beta(coefficients: Matrix, raw: Matrix) -> Matrix:
    """Compute sigmoid(a ln p - b ln(1 - p) + c) with a, b > 0; any shape, the result is in (0, 1)."""
    p = np.maximum(np.minimum(raw, 1 - EDGE), EDGE)
    p = p + 1e-4 * (raw - p)  # beyond the edges the map still rises
    p = np.maximum(np.minimum(p, 1 - 1e-6), 1e-6)
    a, b, c = coefficients
    return np.asarray(1.0 / (1.0 + np.exp(-(a * np.log(p) - b * np.log1p(-p) + c))))


def expected_calibration_error(predicted: Matrix, quality: Matrix) -> float:
    """Average the gap between predicted probability and measured quality over bins of equal count, in [0, 1].

    Source:
        Nguyen & O'Connor (2015), adaptive binning.
    """
    known = ~np.isnan(quality)
    p, y = predicted[known], quality[known]
    if not len(p):
        return float("nan")
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return float(sum(len(part) * abs(p[part].mean() - y[part].mean()) for part in parts) / len(p))


def _logit(p: Matrix) -> Matrix:
    return np.asarray(np.log(p) - np.log1p(-p))
