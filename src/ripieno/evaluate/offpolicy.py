"""Off-policy: the value of another policy, from decisions that were logged with their propensities.

For logged action a with propensity p, reward r, model q(x, .) and target shares t(. | x), over n tasks, w = t(a) / p,
the doubly robust value is mean(q(x, t) + w (r - q(x, a))).

Source:
    Dudik et al. (2011), Doubly robust policy evaluation.
"""

from dataclasses import dataclass

import numpy as np

from ripieno.domain import Matrix
from ripieno.domain.report import Interval
from ripieno.evaluate.bootstrap import NORMAL_95

CAP = 20.0
"""Largest weight of one decision. Larger weights are cut, which adds bias and removes much variance.

Source:
    Ionides (2008), Truncated importance sampling.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Logged:
    """n logged decisions over m workers."""

    action: "np.ndarray"
    """Column of the chosen worker, shape (n,)."""
    propensity: Matrix
    """Selection probability of that worker, shape (n,), in (0, 1]."""
    reward: Matrix
    """Shape (n,)."""
    expected: Matrix
    """Expected reward of each worker, shape (n, m); NaN if the worker was not eligible."""

    def __post_init__(self) -> None:
        if not ((self.propensity > 0.0) & (self.propensity <= 1.0)).all():
            raise ValueError("propensities must be in (0, 1]")
        if np.isnan(self.reward).any():
            raise ValueError("rewards must be known")


def estimate_difference(log: Logged, target: Matrix) -> Interval:
    """Estimate the doubly robust value of a policy minus the logged rewards of the same tasks."""
    rows = np.arange(len(log.action))
    weights = target[rows, log.action] / log.propensity
    model = np.nan_to_num(log.expected)
    gains = (target * model).sum(axis=1) + weights * (log.reward - model[rows, log.action]) - log.reward
    mean = float(gains.mean())
    half = NORMAL_95 * float(np.sqrt(((gains - mean) ** 2).sum())) / max(len(gains), 1)
    return Interval(mean=mean, low=mean - half, high=mean + half)
