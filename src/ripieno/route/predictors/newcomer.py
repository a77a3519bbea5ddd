"""Newcomer: what a few probes tell of a worker that was never measured, given how other workers differ.

Each worker w has an ability in each kind of task c, and each task i a difficulty:

    P(w solves i) = sigmoid(theta[w, c] - b[i]),    theta[w] ~ N(m, L L' + D)

with few directions L that workers differ along together, so that a probe in one kind says something of all others.

Source:
    Rasch (1960), for ability and difficulty; Tipping & Bishop (1999), Probabilistic principal component analysis, for
    the prior; MacKay (2003), chapter 27, for the Laplace approximation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.domain import Matrix

RANK = 3
LEAST_WORKERS = 4
"""With fewer known workers, directions cannot be told from luck: only a spread of each kind is learned."""
NEWTON_STEPS = 12
LEAST_SPREAD = 0.05
PRIOR_COUNT = 2.0
RELEVANT = (0.05, 0.95)
IRRELEVANT_WEIGHT = 0.05
"""Weight of a kind in which it is all but settled whether the newcomer is best."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Posterior:
    """What is believed of one worker after its probes."""

    ability: Matrix
    """Mean of theta, shape (k,)."""
    covariance: Matrix
    """Shape (k, k)."""


class NewcomerPrior:
    """How known workers differ over k kinds of tasks.

    Args:
        which: kind of each known task, shape (n,), in [0, k).
        quality: outcomes of m known workers, shape (n, m), NaN where unknown.
    """

    def __init__(self, which: "np.ndarray", quality: Matrix) -> None:
        self.which = which
        self.kinds = int(which.max()) + 1
        self.difficulty = _difficulties(quality)
        self.shares = np.bincount(which, minlength=self.kinds) / len(which)
        abilities, noise = _abilities(which, quality, self.difficulty, self.kinds)
        self.mean = abilities.mean(axis=0)
        self.covariance = _spread(abilities - self.mean, noise)
        self._precision = np.linalg.inv(self.covariance)

    def update(self, probed: Sequence[int], outcomes: Sequence[float] | Matrix) -> Posterior:
        """Fold probes in.

        Args:
            probed: rows of the known tasks that the newcomer was asked.
            outcomes: quality of its answers, each in [0, 1].
        """
        rows, met = np.asarray(probed, dtype=np.int64), np.asarray(outcomes, dtype=np.float64)
        cells, theta = self.which[rows], self.mean.copy()
        hessian = self._precision
        for _ in range(NEWTON_STEPS):
            p = _sigmoid(theta[cells] - self.difficulty[rows])
            gradient = np.bincount(cells, met - p, self.kinds) - self._precision @ (theta - self.mean)
            hessian = self._precision + np.diag(np.bincount(cells, p * (1.0 - p), self.kinds))
            theta = theta + np.linalg.solve(hessian, gradient)
        return Posterior(ability=theta, covariance=np.linalg.inv(hessian))

    def predict(self, posterior: Posterior) -> tuple[Matrix, Matrix]:
        """Expected quality in each kind and its standard deviation, each of shape (k,)."""
        variance = np.diag(posterior.covariance)
        damped = (posterior.ability[self.which] - self.difficulty) / np.sqrt(
            1.0 + np.pi * variance[self.which] / 8.0
        )  # MacKay's approximation of the mean of a sigmoid
        p = _sigmoid(damped)
        counts = np.maximum(np.bincount(self.which, minlength=self.kinds), 1)
        slopes = np.bincount(self.which, p * (1.0 - p), self.kinds) / counts
        return np.bincount(self.which, p, self.kinds) / counts, slopes * np.sqrt(variance)

    def choose_probe(self, posterior: Posterior, *, asked: set[int], rivals: Matrix, rng: np.random.Generator) -> int:
        """A task of the kind in which an answer says most about where the newcomer should be used.

        Within the kind it is drawn at random: tasks picked for their difficulty would speak of the model's faults.

        Args:
            posterior: what is believed by now.
            asked: rows that were probed already.
            rivals: quality of the best known worker in each kind, shape (k,).
            rng: draws the task.

        Returns:
            A row of the known tasks that is not in `asked`.
        """
        expected, sd = self.predict(posterior)
        wins = _normal_cdf((expected - rivals) / np.maximum(sd, 1e-9))
        is_open = (wins > RELEVANT[0]) & (wins < RELEVANT[1])
        p = _sigmoid(posterior.ability[self.which] - self.difficulty)
        counts = np.maximum(np.bincount(self.which, minlength=self.kinds), 1)
        slopes = np.bincount(self.which, p * (1.0 - p), self.kinds) / counts
        weights = self.shares * np.where(is_open, 1.0, IRRELEVANT_WEIGHT) * slopes**2
        gains = (weights @ posterior.covariance**2) * slopes / (1.0 + slopes * np.diag(posterior.covariance))
        free = np.ones(len(self.which), dtype=bool)
        free[list(asked)] = False
        gains[np.bincount(self.which[free], minlength=self.kinds) == 0] = -np.inf
        return int(rng.choice(np.flatnonzero(free & (self.which == np.argmax(gains)))))


def _difficulties(quality: Matrix) -> Matrix:
    """Minus the logit of each task's mean success, pulled towards the pool's."""
    known = ~np.isnan(quality)
    pool = float(np.nanmean(quality))
    solved = np.where(known, quality, 0.0).sum(axis=1)
    share = (solved + PRIOR_COUNT * pool) / (known.sum(axis=1) + PRIOR_COUNT)
    share = np.clip(share, 0.02, 0.98)
    return np.asarray(np.log1p(-share) - np.log(share))


def _abilities(which: "np.ndarray", quality: Matrix, difficulty: Matrix, kinds: int) -> tuple[Matrix, Matrix]:
    """Ability of each worker in each kind, shape (m, k), and the variance of what it was measured by."""
    known = ~np.isnan(quality)
    met = np.where(known, quality, 0.0)
    theta, information = np.zeros((quality.shape[1], kinds)), np.ones((quality.shape[1], kinds))
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(theta[:, which].T - difficulty[:, None])
        gradient = _sum_by_kind(which, (met - p) * known, kinds) - theta / 4.0
        information = _sum_by_kind(which, p * (1.0 - p) * known, kinds) + 1.0 / 4.0
        theta = np.clip(theta + gradient / information, -8.0, 8.0)
    return theta, 1.0 / information


def _spread(left: Matrix, noise: Matrix) -> Matrix:
    """Covariance of abilities without the noise they were measured by: few shared directions and a spread of each."""
    workers, kinds = left.shape
    raw = left.T @ left / max(workers - 1, 1)
    own = np.maximum(np.diag(raw) - noise.mean(axis=0), LEAST_SPREAD)
    if workers < LEAST_WORKERS:
        return np.diag(own)
    values, directions = np.linalg.eigh(raw - np.diag(noise.mean(axis=0)))
    top = slice(max(kinds - RANK, 0), kinds)
    shared = directions[:, top] * np.maximum(values[top], 0.0) @ directions[:, top].T
    return np.asarray(shared + np.diag(np.maximum(own - np.diag(shared), LEAST_SPREAD)))


def _sum_by_kind(which: "np.ndarray", values: Matrix, kinds: int) -> Matrix:
    return np.asarray((np.eye(kinds)[which].T @ values).T)


def _sigmoid(x: Matrix) -> Matrix:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _normal_cdf(x: Matrix) -> Matrix:
    from scipy.special import ndtr

    return np.asarray(ndtr(x))
