"""Calibration: from raw quality to a probability that holds what it says.

Source:
    Kull, Silva Filho & Flach (2017), Beta calibration. Each worker's map is strictly increasing.
"""

from collections.abc import Mapping

import numpy as np

from ripieno.domain import Matrix
from ripieno.route.predictors.alternatives import fit_shares

OFFSET_PRECISION = 25.0
"""An offset of a fifth of a logit is one standard deviation: what workers differed by on the outcome sets."""
NEWTON_STEPS = 8
EDGE = 0.005
"""Raw predictions are clipped this far from 0 and 1: a linear head can leave the interval."""


class Calibrator:
    """One beta map for all workers, then an offset for each, shrunk to none where it has few outcomes."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = dict(arrays)
        self._map = BetaCalibrator(self.arrays["coefficients"])

    @classmethod
    def fit(cls, raw: Matrix, quality: Matrix) -> "Calibrator":
        """Fit on out-of-fold predictions and the outcomes they met, each of shape (n, m)."""
        shared = BetaCalibrator.fit(raw, quality)
        offsets = fit_offsets(_logit(shared.apply(raw)), quality)
        return cls({"coefficients": shared.coefficients, "offsets": offsets})

    def apply(self, raw: Matrix) -> Matrix:
        """Calibrate raw predictions, shape (n, m)."""
        return np.asarray(1.0 / (1.0 + np.exp(-(_logit(self._map.apply(raw)) + self.arrays["offsets"]))))


def fit_offsets(logits: Matrix, quality: Matrix) -> Matrix:
    """Offset of each worker's logit, shape (m,): the mode under a normal prior, by Newton's method."""
    known = ~np.isnan(quality)
    met = np.where(known, quality, 0.0)
    offsets = np.zeros(logits.shape[1])
    for _ in range(NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-(logits + offsets)))
        gradient = ((met - p) * known).sum(axis=0) - OFFSET_PRECISION * offsets
        offsets = offsets + gradient / ((p * (1.0 - p) * known).sum(axis=0) + OFFSET_PRECISION)
    return offsets


class BetaCalibrator:
    """sigmoid(a ln p - b ln(1 - p) + c), with a, b > 0."""

    def __init__(self, coefficients: Matrix | None = None) -> None:
        self.coefficients = np.array([1.0, 1.0, 0.0]) if coefficients is None else coefficients

    @classmethod
    def fit(cls, raw: Matrix, quality: Matrix) -> "BetaCalibrator":
        """Fit on out-of-fold predictions and the outcomes they met; identity where there are under 50."""
        known = ~np.isnan(quality)
        p, y = np.clip(raw[known], EDGE, 1 - EDGE), quality[known]
        if len(y) < 50 or y.min() == y.max():
            return cls()
        for design in (np.stack([np.log(p), -np.log1p(-p)], axis=1), np.log(p / (1 - p))[:, None]):
            slopes, intercept = fit_shares(design, y, freedom=1e3)
            if (slopes > 1e-3).all():
                return cls(np.array([slopes[0], slopes[-1], intercept]))
        return cls()

    def apply(self, raw: Matrix) -> Matrix:
        """Calibrate raw predictions; any shape, the result is in (0, 1)."""
        p = np.maximum(np.minimum(raw, 1 - EDGE), EDGE)
        p = p + 1e-4 * (raw - p)  # beyond the edges the map still rises
        p = np.maximum(np.minimum(p, 1 - 1e-6), 1e-6)
        a, b, c = self.coefficients
        return np.asarray(1.0 / (1.0 + np.exp(-(a * np.log(p) - b * np.log1p(-p) + c))))


def expected_calibration_error(predicted: Matrix, quality: Matrix, *, bins: int = 15) -> float:
    """Mean gap between stated probability and met quality, over bins of equal count, in [0, 1].

    Source:
        Nguyen & O'Connor (2015), adaptive binning.
    """
    known = ~np.isnan(quality)
    p, y = predicted[known], quality[known]
    if not len(p):
        return float("nan")
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(part) * abs(p[part].mean() - y[part].mean()) for part in parts) / len(p))


def _logit(p: Matrix) -> Matrix:
    return np.asarray(np.log(p) - np.log1p(-p))
