"""Guard: the margin by which a worker must be ahead of the best single worker.

The highest of many noisy predictions is often the luckiest (the winner's curse): if tasks differ little, it loses to
the best single worker. The margin is chosen by its gain on held-out tasks.
"""

from collections.abc import Sequence

import numpy as np

from ripieno.domain import Matrix
from ripieno.domain.training import find_best_column
from ripieno.route.choose import guard
from ripieno.route.predictors.stack import Folds

MARGINS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)
NEVER = 2.0
"""A margin that no difference of probabilities exceeds, so that the best single worker always leads."""
DOUBT = 0.5
"""Standard errors that a gain must exceed to be preferred to `NEVER`."""


def choose_margin(held_out: Sequence[Matrix], quality: Matrix, folds: Sequence[Folds]) -> float:
    """Choose the margin by its held-out gain over the best single worker of the other folds.

    The incumbent is chosen without the held-out tasks, because its own luck would count against every rival otherwise.
    The margin is 0 if the gain without a margin exceeds its standard error.

    Args:
        held_out: out-of-fold predictions, shape (n, m), one matrix per draw of folds.
        quality: measured quality, shape (n, m), NaN if unknown.
        folds: the draws of folds.

    Returns:
        A margin in [0, NEVER].
    """
    gains = {margin: _measure_gain(held_out, quality, folds, margin) for margin in MARGINS}
    free, error = gains[0.0]
    if free > error:
        return 0.0
    worth = {margin: gain - DOUBT * error for margin, (gain, error) in gains.items()}
    best = max(worth, key=lambda margin: worth[margin])
    return best if worth[best] > 0.0 else NEVER


def _measure_gain(
    held_out: Sequence[Matrix], quality: Matrix, folds: Sequence[Folds], margin: float
) -> tuple[float, float]:
    """Compute the mean gain over the incumbents and its standard error, on tasks with both workers measured."""
    means, errors = [], []
    for predicted, draw in zip(held_out, folds, strict=True):
        gains = [_fold_gains(predicted, quality, train, test, margin) for train, test in draw]
        known = np.concatenate([gain[~np.isnan(gain)] for gain in gains]) if gains else np.zeros(0)
        if len(known):
            means.append(known.mean())
            errors.append(known.std() / np.sqrt(len(known)))
    return (float(np.mean(means)), float(np.mean(errors))) if means else (0.0, 0.0)


def _fold_gains(
    predicted: Matrix, quality: Matrix, train: "np.ndarray", test: "np.ndarray", margin: float
) -> "np.ndarray":
    incumbent, scores = find_best_column(quality[train]), predicted[test]
    chosen = guard(scores, scores.argmax(axis=1), np.full(len(test), incumbent), margin=margin)
    return np.asarray(quality[test, chosen] - quality[test, incumbent])
