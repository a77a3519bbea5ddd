"""Intervals of means over tasks: paired, and reproducible by their seed."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ripieno.domain.report import Interval

RESAMPLES = 2000
NORMAL_95 = 1.96
"""Normal quantile of a 95 % interval."""
ERRING = 0.05
"""Accepted probability of a false finding over all comparisons of one question."""


class Draws:
    """Resamples of one set of tasks, drawn once and used for every mean, so that all intervals are paired.

    Args:
        groups: a number for each task, shape (n,); tasks of one group are drawn together.
        rng: the generator.

    Source:
        Efron & Tibshirani (1993), An introduction to the bootstrap, sections 13.3 and 8.6 (clusters).
    """

    def __init__(self, groups: np.ndarray, *, rng: np.random.Generator) -> None:
        if not len(groups):
            raise ValueError("a mean needs at least one value")
        names, self._which = np.unique(groups, return_inverse=True)
        picked = rng.integers(len(names), size=(RESAMPLES, len(names)))
        offsets = np.arange(RESAMPLES)[:, None] * len(names)
        counts = np.bincount((picked + offsets).ravel(), minlength=RESAMPLES * len(names))
        self._weights = counts.reshape(RESAMPLES, len(names)).astype(np.float32)
        self._sizes = self._weights @ np.bincount(self._which).astype(np.float32)

    def interval(self, values: np.ndarray) -> Interval:
        """Compute the percentile interval of the mean of one number per task, shape (n,)."""
        sums = np.bincount(self._which, weights=values).astype(np.float32)
        low, high = np.quantile((self._weights @ sums) / self._sizes, [0.025, 0.975])
        return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def bootstrap_mean(values: np.ndarray, *, rng: np.random.Generator, groups: np.ndarray | None = None) -> Interval:
    """Compute the percentile interval of a mean; see `Draws`."""
    return Draws(np.arange(len(values)) if groups is None else groups, rng=rng).interval(values)


def wilson(qualities: Sequence[float]) -> Interval:
    """Compute the share of accepted answers with its interval.

    Source:
        Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    n, mean, z = len(qualities), float(np.mean(qualities)), NORMAL_95
    middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2)))
    return Interval(mean=mean, low=max(middle - half, 0.0), high=min(middle + half, 1.0))


def subtract_means(one: npt.ArrayLike, other: npt.ArrayLike, *, tests: int) -> Interval:
    """Compute the difference of two means, with an interval that is corrected for `tests` comparisons (Bonferroni)."""
    first, second = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    mean = float(first.mean() - second.mean())
    half = find_quantile(tests) * float(np.sqrt(first.var() / len(first) + second.var() / len(second)))
    return Interval(mean=mean, low=mean - half, high=mean + half)


def find_quantile(tests: int) -> float:
    """Find the normal quantile for `tests` two-sided comparisons with the error of one (Bonferroni)."""
    return NormalDist().inv_cdf(1.0 - ERRING / 2.0 / max(tests, 1))
