"""Intervals: paired, over tasks, with a seed."""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width: what stands behind the +-."""
        return (self.high - self.low) / 2.0


def bootstrap_mean(values: np.ndarray, *, rng: np.random.Generator, groups: np.ndarray | None = None) -> Interval:
    """Percentile interval of a mean; tasks of one group are drawn together.

    Args:
        values: one number a task, shape (n,), n at least 1.
        rng: the generator; one seed gives one interval.
        groups: a number for each task, shape (n,); None draws tasks one by one.

    Source:
        Efron & Tibshirani (1993), An introduction to the bootstrap, sections 13.3 and 8.6 (clusters).
    """
    if not len(values):
        raise ValueError("a mean needs at least one value")
    _, which = np.unique(groups if groups is not None else np.arange(len(values)), return_inverse=True)
    sums = np.bincount(which.ravel(), weights=values)
    sizes = np.bincount(which.ravel()).astype(np.float64)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 200):
        weights = rng.multinomial(len(sums), np.full(len(sums), 1.0 / len(sums)), size=200)
        means[start : start + 200] = (weights @ sums) / (weights @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))
