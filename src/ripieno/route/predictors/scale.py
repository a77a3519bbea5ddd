"""Scales: cost and latency of each pair, lognormal around a low-rank line."""

import numpy as np

from ripieno.domain import Matrix
from ripieno.domain.training import column_means
from ripieno.route.predictors.lowrank import LowRankRegressor
from ripieno.route.predictors.regressors import Arrays
from ripieno.route.predictors.stack import Folds, cross_predict

FLOOR = 1e-12
UNKNOWN_LOG_SD = 0.5
MOST_LOG_SD = 2.0
"""Cap of the spread, because the mean of a lognormal with a larger one is unreliable."""

_SPREAD = ("log_sd", "quantiles")


class ScaleRegressor:
    """A positive number for each (task, worker) pair.

    Source:
        Aitchison & Brown (1957), The lognormal distribution: median exp(mu), mean exp(mu + sd^2 / 2).
    """

    def __init__(self, arrays: Arrays) -> None:
        self.log_sd: Matrix = np.asarray(arrays["log_sd"])
        self.tails: Matrix = np.asarray(arrays["quantiles"])
        """10 % and 90 % quantile of the logarithm over the median, shape (2, m)."""
        self.mean_tails: Matrix = self.tails - self.log_sd**2 / 2.0
        """The same over the expected value."""
        self._line = LowRankRegressor()
        self._line.restore({name: value for name, value in arrays.items() if name not in _SPREAD})

    @classmethod
    def fit(cls, z: Matrix, target: Matrix, *, folds: Folds) -> "ScaleRegressor | None":
        """Regress the logarithm; return None if all targets are unknown.

        Args:
            z: task vectors, shape (n, d).
            target: positive numbers, shape (n, m), NaN if unknown.
            folds: folds on which the spread is measured.
        """
        if np.isnan(target).all():
            return None
        logs, unlabelled = np.log(np.maximum(target, FLOOR)), [None] * len(z)
        left = logs - cross_predict(LowRankRegressor, z, logs, unlabelled, folds)
        spread = np.sqrt(np.nan_to_num(column_means(left**2), nan=UNKNOWN_LOG_SD**2))
        line = LowRankRegressor()
        line.fit(z, logs, unlabelled)
        tails = np.stack([_column_quantile(left, 0.1), _column_quantile(left, 0.9)])
        return cls({**line.state(), "log_sd": np.minimum(spread, MOST_LOG_SD), "quantiles": tails})

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Return the learned arrays."""
        return {**self._line.state(), "log_sd": self.log_sd, "quantiles": self.tails}

    def median(self, z: Matrix) -> Matrix:
        """Compute the median, shape (len(z), m)."""
        return np.exp(self._line.predict(z))

    def mean(self, z: Matrix) -> Matrix:
        """Compute the expected value, shape (len(z), m)."""
        return np.exp(self._line.predict(z) + self.log_sd**2 / 2.0)


def _column_quantile(values: Matrix, share: float) -> Matrix:
    """Compute a quantile of each column over its known entries; a normal's for a column without any."""
    usual = UNKNOWN_LOG_SD * (1.2816 if share > 0.5 else -1.2816)
    known = [column[~np.isnan(column)] for column in values.T]
    return np.array([np.quantile(column, share) if len(column) else usual for column in known])
