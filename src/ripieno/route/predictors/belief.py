"""Belief: what single outcomes say of a worker beyond what was learned before, folded in one at a time.

For outcome y of worker w on a task with group weights g (shape (k,), summing to 1) and expected quality q:

    P(y = 1) = sigmoid(logit q + g . theta_w),    theta_w ~ N(m, S)

For a known worker S says how far its learned estimates may be off; for a newcomer, how workers differ: a few shared
directions L and a spread of each group, S = L L' + D, so that an outcome in one group says something of all others.

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
"""With fewer known workers, directions cannot be told from luck: only a spread of each group is learned."""
NEWTON_STEPS = 12
LEAST_SPREAD = 0.05
UNKNOWN_SPREAD = 1.0
"""Variance of a group's ability, in logits, where too few workers are known to learn it."""
ABILITY_PRECISION = 0.25
PRIOR_COUNT = 2.0
EDGE = 0.02
"""Expectations are clipped this far from 0 and 1: nobody is ever sure."""
AS_GOOD = 0.03
"""Quality that is no difference: a worker this close to the best one may be taken for its price."""
RELEVANT = (0.05, 0.95)
IRRELEVANT_WEIGHT = 0.05
"""Weight of a group in which it is all but settled whether the worker is best."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Belief:
    """A normal distribution over one worker's abilities in k groups, in logits beside what was expected."""

    mean: Matrix
    """Shape (k,)."""
    covariance: Matrix
    """Shape (k, k)."""

    @classmethod
    def prior(cls, covariance: Matrix) -> "Belief":
        """No deviation, with this uncertainty."""
        return cls(mean=np.zeros(len(covariance)), covariance=covariance)

    def update(self, weights: Matrix, expected: float, outcome: float) -> "Belief":
        """Fold one outcome in.

        Args:
            weights: groups of the task, shape (k,).
            expected: quality expected without this belief, in [0, 1].
            outcome: quality met, in [0, 1].
        """
        reach = self.covariance @ weights
        p = float(sigmoid(to_logit(np.array(expected)) + weights @ self.mean))
        information = max(p * (1.0 - p), EDGE * (1.0 - EDGE))
        gain = reach / (1.0 + information * (weights @ reach))
        covariance = self.covariance - information * np.outer(gain, reach)
        return Belief(mean=self.mean + gain * (outcome - p), covariance=(covariance + covariance.T) / 2.0)

    def widen(self, covariance: Matrix) -> "Belief":
        """Forget: the same mean, with this uncertainty added."""
        return Belief(mean=self.mean, covariance=self.covariance + covariance)

    def apply(self, weights: Matrix, expected: Matrix) -> tuple[Matrix, Matrix]:
        """Quality with this belief, and its standard deviation.

        Args:
            weights: groups of n tasks, shape (n, k).
            expected: quality expected without this belief, shape (n,).

        Returns:
            Two arrays of shape (n,).
        """
        variance = np.maximum(((weights @ self.covariance) * weights).sum(axis=1), 0.0)
        logits = to_logit(expected) + weights @ self.mean
        p = sigmoid(logits / np.sqrt(1.0 + np.pi * variance / 8.0))
        spread = np.sqrt(variance)
        return p, (sigmoid(logits + spread) - sigmoid(logits - spread)) / 2.0


def learn_prior(weights: Matrix, quality: Matrix) -> Belief:
    """How a worker that was never measured may differ from the pool, in k groups.

    Args:
        weights: groups of the known tasks, shape (n, k); each task counts for its likeliest group.
        quality: outcomes of m known workers, shape (n, m), NaN where unknown.
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
    """What outcomes leave open of each known worker in each group, and how good the best one is there.

    Args:
        weights: groups of the known tasks, shape (n, k).
        quality: outcomes, shape (n, m), NaN where unknown.

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
    """Mean success on each task over its known workers, pulled towards the pool's; shape (n,)."""
    known = ~np.isnan(quality)
    pool = float(np.nanmean(quality))
    solved = np.where(known, quality, 0.0).sum(axis=1)
    return np.asarray((solved + PRIOR_COUNT * pool) / (known.sum(axis=1) + PRIOR_COUNT))


def choose_probe(
    belief: Belief, weights: Matrix, expected: Matrix, *, rivals: Matrix, asked: set[int], rng: np.random.Generator
) -> int:
    """A task of the group in which an answer says most about where the worker should be used.

    Within the group it is drawn at random: tasks picked for their difficulty would speak of the model's faults.

    Args:
        belief: what is believed by now.
        weights: groups of the tasks on offer, shape (n, k).
        expected: quality expected of the worker on each task before any outcome, shape (n,).
        rivals: quality of the best known worker in each group, shape (k,).
        asked: rows that were asked already.
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
    """Probability that the worker is as good as the best one in each group, shape (k,); see `choose_probe`."""
    usual, sd, _ = summarise_groups(belief, weights, expected)
    return _normal_cdf((usual - rivals + AS_GOOD) / np.maximum(sd, 1e-9))


def is_settled(chances: Matrix) -> bool:
    """Whether it is all but known in every group if the worker is best there."""
    return bool(((chances <= RELEVANT[0]) | (chances >= RELEVANT[1])).all())


def summarise_groups(belief: Belief, weights: Matrix, expected: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Mean quality in each group, its standard deviation, and the slope of quality in ability; each of shape (k,)."""
    which, groups = weights.argmax(axis=1), weights.shape[1]
    p, sd = belief.apply(weights, expected)
    counts = np.maximum(np.bincount(which, minlength=groups), 1)
    mean, slopes, spread = (np.bincount(which, part, groups) / counts for part in (p, p * (1.0 - p), sd))
    return mean, spread, slopes


def to_logit(p: Matrix) -> Matrix:
    """Logit of a probability that is clipped away from 0 and 1."""
    clipped = np.clip(p, EDGE, 1.0 - EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _abilities(which: "np.ndarray", quality: Matrix, ease: Matrix, groups: int) -> tuple[Matrix, Matrix]:
    """Ability of each worker in each group, shape (m, k), and the variance of what it was measured by."""
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


def _normal_cdf(x: Matrix) -> Matrix:
    return np.array([STANDARD.cdf(value) for value in x.tolist()])
