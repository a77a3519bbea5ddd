"""Cards: similarity of two workers by their cards."""

import re
from collections.abc import Sequence

import numpy as np

from ripieno.domain import Matrix, Worker, WorkerId
from ripieno.domain.training import describe_card

STRANGER = 0.005
"""Weight of a worker of another family; one of the same family has the square of their likeness, at most 1."""
LEAST_CLOSENESS = 0.05
"""Relative weight of a worker of a very different price."""


def weigh_similar(worker: Worker, workers: Sequence[WorkerId], cards: Matrix) -> Matrix:
    """Weigh the known workers by their similarity to an unmeasured one, in family and price.

    Args:
        worker: the unmeasured worker.
        workers: the m known workers.
        cards: facts of their cards, shape (m, f).

    Returns:
        Weights that sum to 1, shape (m,).
    """
    own = describe_card(worker.price, worker.context_window)
    known = ~np.isnan(cards)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, cards, 0.0).sum(axis=0) / counts
    scale = np.sqrt(np.where(known, (cards - mean) ** 2, 0.0).sum(axis=0) / counts) + 0.5
    distances = np.nansum(((cards - own) / scale) ** 2, axis=1)
    family = np.array([_likeness(worker.id, other) for other in workers])
    weights = (np.exp(-distances / 2.0) + LEAST_CLOSENESS) * (family**2 + STRANGER)
    return np.asarray(weights / weights.sum())


def _likeness(first: str, second: str) -> float:
    """Return the share of common words of two ids, in [0, 1]; numbers such as sizes do not count."""
    one, two = _words(first), _words(second)
    return len(one & two) / len(one | two) if one | two else 0.0


def _words(worker: str) -> set[str]:
    return {word for word in re.split(r"[^a-z]+", worker.rsplit("/", 1)[-1]) if len(word) > 1}
