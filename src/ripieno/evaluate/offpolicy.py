"""Off-policy: what another policy would have earned, from decisions that were logged with their propensities.

For logged action a with propensity p, reward r, model q(x, .) and target shares t(. | x), over n tasks, w = t(a) / p:

    IPS    mean(w r)                        SNIPS     sum(w r) / sum(w)
    DR     mean(q(x, t) + w (r - q(x, a)))  capped DR the same with min(w, cap)

Source:
    Horvitz & Thompson (1952); Swaminathan & Joachims (2015), The self-normalized estimator; Dudik et al. (2011),
    Doubly robust policy evaluation; capped weights as in Ionides (2008), Truncated importance sampling.
"""

from dataclasses import dataclass

import numpy as np

from ripieno.domain import Matrix
from ripieno.evaluate.bootstrap import NORMAL_95

CAP = 20.0
"""Weights above it are cut for a point estimate: biased, and of far less variance."""


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


def estimate_values(log: Logged, target: Matrix, *, cap: float = CAP) -> dict[str, Value]:
    """Value of a policy by each estimator.

    Args:
        log: what was logged.
        target: the policy's probability of each worker, shape (n, m), rows sum to 1.
        cap: largest weight of the capped estimator.

    Returns:
        Keys `ips`, `snips`, `dr` and `capped_dr`.
    """
    rows = np.arange(len(log.action))
    weights = target[rows, log.action] / log.propensity
    model = np.nan_to_num(log.expected)
    direct = (target * model).sum(axis=1)
    left = log.reward - model[rows, log.action]
    share = weights.sum()
    snips = float((weights * log.reward).sum() / share) if share > 0.0 else float("nan")
    return {
        "ips": _summarise(weights * log.reward),
        "snips": _around(snips, weights * (log.reward - snips) * len(rows) / max(share, 1e-12)),
        "dr": _summarise(direct + weights * left),
        "capped_dr": _summarise(direct + np.minimum(weights, cap) * left),
    }


def estimate_difference(log: Logged, target: Matrix) -> Value:
    """Doubly robust value of a policy minus what the logged one earned on the same tasks."""
    rows = np.arange(len(log.action))
    weights = target[rows, log.action] / log.propensity
    model = np.nan_to_num(log.expected)
    scores = (target * model).sum(axis=1) + weights * (log.reward - model[rows, log.action])
    return _summarise(scores - log.reward)


def _summarise(scores: Matrix) -> Value:
    return _around(float(scores.mean()), scores - scores.mean())


def _around(mean: float, deviations: Matrix) -> Value:
    half = NORMAL_95 * float(np.sqrt((deviations**2).sum())) / max(len(deviations), 1)
    return Value(mean=mean, low=mean - half, high=mean + half)
