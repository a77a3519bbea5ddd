"""Belief: a worker's deviation from the checkpoint's expectation, updated by one outcome at a time.

For outcome y of worker w on a task with group weights g (shape (k,), summing to 1) and expected quality q:

    P(y = 1) = sigmoid(logit q + g . theta_w),    theta_w ~ N(m, S)

For a known worker, S is the uncertainty of its learned estimates. For a newcomer, S is the covariance between workers:
a few shared directions L and a spread of each group, S = L L' + D, so that an outcome in one group informs all others.

Source:
    Rasch (1960), for ability and difficulty; Tipping & Bishop (1999), Probabilistic principal component analysis, for
    S; MacKay (1992), The evidence framework applied to classification networks, for the update and the damped mean.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ripieno.domain import Matrix
from ripieno.route.predictors.regressors import sigmoid

STANDARD = NormalDist()
RANK = 3
LEAST_WORKERS = 4
"""With fewer known workers, no shared directions are learned, only a spread of each group."""
NEWTON_STEPS = 12
LEAST_SPREAD = 0.05
UNKNOWN_SPREAD = 1.0
"""Variance of the ability in a group, in logits, if too few workers are known to learn it."""
ABILITY_PRECISION = 0.25
PRIOR_COUNT = 2.0
EDGE = 0.02
"""Expectations are clipped this far from 0 and 1."""
AS_GOOD = 0.03
"""Quality by which a worker may trail the best one and still count as equally good."""
RELEVANT = (0.05, 0.95)
IRRELEVANT_WEIGHT = 0.05
"""Weight of a group in which it is nearly certain whether the worker is best."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Belief:
    """A normal distribution over one worker's abilities in k groups, in logits relative to the expectation."""

    mean: Matrix
    """Shape (k,)."""
    covariance: Matrix
    """Shape (k, k)."""

    @classmethod
    def prior(cls, covariance: Matrix) -> "Belief":
        """Make the belief of no deviation, with this uncertainty."""
        return cls(mean=np.zeros(len(covariance)), covariance=covariance)

    def update(self, weights: Matrix, expected: float, outcome: float) -> "Belief":
        """Update the belief by one outcome.

        Args:
            weights: group weights of the task, shape (k,).
            expected: expected quality without this belief, in [0, 1].
            outcome: measured quality, in [0, 1].
        """
        reach = self.covariance @ weights
        p = float(sigmoid(to_logit(np.array(expected)) + weights @ self.mean))
        information = max(p * (1.0 - p), EDGE * (1.0 - EDGE))
        gain = reach / (1.0 + information * (weights @ reach))
        covariance = self.covariance - information * np.outer(gain, reach)
        return Belief(mean=self.mean + gain * (outcome - p), covariance=(covariance + covariance.T) / 2.0)

    def widen(self, covariance: Matrix) -> "Belief":
        """Add uncertainty, and keep the mean."""
        return Belief(mean=self.mean, covariance=self.covariance + covariance)

    def apply(self, weights: Matrix, expected: Matrix) -> tuple[Matrix, Matrix]:
        """Compute the quality with this belief, and its standard deviation.

        Args:
            weights: group weights of n tasks, shape (n, k).
            expected: expected quality without this belief, shape (n,).

        Returns:
            Two arrays of shape (n,).
        """
        variance = np.maximum(((weights @ self.covariance) * weights).sum(axis=1), 0.0)
        logits = to_logit(expected) + weights @ self.mean
        p = sigmoid(logits / np.sqrt(1.0 + np.pi * variance / 8.0))
        spread = np.sqrt(variance)
        return p, (sigmoid(logits + spread) - sigmoid(logits - spread)) / 2.0


def learn_prior(weights: Matrix, quality: Matrix) -> Belief:
    """Learn the belief of an unmeasured worker's deviation from the pool, in k groups.

    Args:
        weights: group weights of the known tasks, shape (n, k); each task counts for its likeliest group.
        quality: outcomes of m known workers, shape (n, m), NaN if unknown.
    """
    groups, workers = weights.shape[1], quality.shape[1]
    if workers < 2:
        return Belief.prior(UNKNOWN_SPREAD * np.eye(groups))
    abilities, noise = _abilities(weights.argmax(axis=1), quality, to_logit(pooled_quality(quality)), groups)
    mean = abilities.mean(axis=0)
    raw = (abilities - mean).T @ (abilities - mean) / (workers - 1)
    own = np.maximum(np.diag(raw) - noise.mean(axis=0), LEAST_SPREAD)
    if workers < LEAST_WORKERS:
        return Belief(mean=mean, covariance=np.diag(np.maximum(own, UNKNOWN_SPREAD)))
    values, directions = np.linalg.eigh(raw - np.diag(noise.mean(axis=0)))
    top = slice(max(groups - RANK, 0), groups)
    shared = directions[:, top] * np.maximum(values[top], 0.0) @ directions[:, top].T
    return Belief(mean=mean, covariance=shared + np.diag(np.maximum(own - np.diag(shared), LEAST_SPREAD)))


def learn_cells(weights: Matrix, quality: Matrix) -> tuple[Matrix, Matrix]:
    """Estimate the remaining uncertainty of each known worker in each group, and the best worker's quality there.

    Args:
        weights: group weights of the known tasks, shape (n, k).
        quality: outcomes, shape (n, m), NaN if unknown.

    Returns:
        Variance of each worker's ability in each group, in logits, shape (m, k); best mean quality, shape (k,).
    """
    which, groups = weights.argmax(axis=1), weights.shape[1]
    _, variance = _abilities(which, quality, to_logit(pooled_quality(quality)), groups)
    known = ~np.isnan(quality)
    met = np.where(known, quality, 0.0)
    pool = float(np.nanmean(quality))
    counts = _sum_by_group(which, known.astype(np.float64), groups)
    means = (_sum_by_group(which, met, groups) + PRIOR_COUNT * pool) / (counts + PRIOR_COUNT)
    return variance, means.max(axis=0)


def pooled_quality(quality: Matrix) -> Matrix:
    """Average each task's quality over its known workers, shrunk towards the pool's mean; shape (n,)."""
    known = ~np.isnan(quality)
    pool = float(np.nanmean(quality))
    solved = np.where(known, quality, 0.0).sum(axis=1)
    return np.asarray((solved + PRIOR_COUNT * pool) / (known.sum(axis=1) + PRIOR_COUNT))


def choose_probe(
    belief: Belief, weights: Matrix, expected: Matrix, *, rivals: Matrix, asked: set[int], rng: np.random.Generator
) -> int:
    """Choose a probe: a random task of the group in which an outcome gives the most information.

    Within the group the draw is random, because a choice by difficulty would be biased by the predictor's errors.

    Args:
        belief: the current belief.
        weights: group weights of the available tasks, shape (n, k).
        expected: expected quality of the worker on each task before any outcome, shape (n,).
        rivals: quality of the best known worker in each group, shape (k,).
        asked: rows that were already used.
        rng: draws the task.

    Returns:
        A row that is not in `asked`.
    """
    which, groups = weights.argmax(axis=1), weights.shape[1]
    _, _, slopes = summarise_groups(belief, weights, expected)
    wins = chance_best(belief, weights, expected, rivals=rivals)
    is_open = (wins > RELEVANT[0]) & (wins < RELEVANT[1])
    worth = np.bincount(which, minlength=groups) / len(which) * np.where(is_open, 1.0, IRRELEVANT_WEIGHT) * slopes**2
    gains = (worth @ belief.covariance**2) * slopes / (1.0 + slopes * np.diag(belief.covariance))
    free = np.ones(len(weights), dtype=bool)
    free[list(asked)] = False
    gains[np.bincount(which[free], minlength=groups) == 0] = -np.inf
    return int(rng.choice(np.flatnonzero(free & (which == np.argmax(gains)))))


def chance_best(belief: Belief, weights: Matrix, expected: Matrix, *, rivals: Matrix) -> Matrix:
    """Return the probability that the worker is as good as the best one in each group, shape (k,)."""
    mean, sd, _ = summarise_groups(belief, weights, expected)
    margins = (mean - rivals + AS_GOOD) / np.maximum(sd, 1e-9)
    return np.array([STANDARD.cdf(margin) for margin in margins.tolist()])


def is_settled(chances: Matrix) -> bool:
    """Return whether it is nearly certain in every group if the worker is best there."""
    return bool(((chances <= RELEVANT[0]) | (chances >= RELEVANT[1])).all())


def summarise_groups(belief: Belief, weights: Matrix, expected: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Compute each group's mean quality, its standard deviation, and the slope of quality in ability; shape (k,)."""
    which, groups = weights.argmax(axis=1), weights.shape[1]
    p, sd = belief.apply(weights, expected)
    counts = np.maximum(np.bincount(which, minlength=groups), 1)
    mean, slopes, spread = (np.bincount(which, part, groups) / counts for part in (p, p * (1.0 - p), sd))
    return mean, spread, slopes


def to_logit(p: Matrix) -> Matrix:
    """Compute the logit of a probability, clipped away from 0 and 1."""
    clipped = np.clip(p, EDGE, 1.0 - EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _abilities(which: "np.ndarray", quality: Matrix, ease: Matrix, groups: int) -> tuple[Matrix, Matrix]:
    """Estimate the ability of each worker in each group, and its variance; shape (m, k)."""
    known = ~np.isnan(quality)
    met = np.where(known, quality, 0.0)
    theta, information = np.zeros((quality.shape[1], groups)), np.ones((quality.shape[1], groups))
    for _ in range(NEWTON_STEPS):
        p = sigmoid(theta[:, which].T + ease[:, None])
        gradient = _sum_by_group(which, (met - p) * known, groups) - theta * ABILITY_PRECISION
        information = _sum_by_group(which, p * (1.0 - p) * known, groups) + ABILITY_PRECISION
        theta = np.clip(theta + gradient / information, -8.0, 8.0)
    return theta, 1.0 / information


def _sum_by_group(which: "np.ndarray", values: Matrix, groups: int) -> Matrix:
    return np.asarray((np.eye(groups)[which].T @ values).T)
