"""Off-policy: what another policy would have earned, from decisions that were logged with their propensities.

For logged action a with propensity p, reward r, model q(x, .) and target shares t(. | x), over n tasks, w = t(a) / p,
the doubly robust value is mean(q(x, t) + w (r - q(x, a))).

Source:
    Dudik et al. (2011), Doubly robust policy evaluation.
"""

from dataclasses import dataclass

import numpy as np

from ripieno.domain import Matrix
from ripieno.evaluate.bootstrap import NORMAL_95

CAP = 20.0
"""Largest weight of one decision: above it, a point estimate is cut. That is biased, and of far less variance.

Source:
    Ionides (2008), Truncated importance sampling.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Logged:
    """n logged decisions over m workers."""

    action: "np.ndarray"
    """Column of the worker that was taken, shape (n,)."""
    propensity: Matrix
    """Probability with which it was taken, shape (n,), in (0, 1]."""
    reward: Matrix
    """Shape (n,)."""
    expected: Matrix
    """A model's reward of each worker, shape (n, m), NaN where the worker was not eligible."""

    def __post_init__(self) -> None:
        if not ((self.propensity > 0.0) & (self.propensity <= 1.0)).all():
            raise ValueError("propensities must be in (0, 1]")
        if np.isnan(self.reward).any():
            raise ValueError("rewards must be known")


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """An estimate with its 95 % interval."""

    mean: float
    low: float
    high: float


def estimate_difference(log: Logged, target: Matrix) -> Value:
    """Doubly robust value of a policy minus what the logged one earned on the same tasks."""
    rows = np.arange(len(log.action))
    weights = target[rows, log.action] / log.propensity
    model = np.nan_to_num(log.expected)
    gains = (target * model).sum(axis=1) + weights * (log.reward - model[rows, log.action]) - log.reward
    mean = float(gains.mean())
    half = NORMAL_95 * float(np.sqrt(((gains - mean) ** 2).sum())) / max(len(gains), 1)
    return Value(mean=mean, low=mean - half, high=mean + half)
