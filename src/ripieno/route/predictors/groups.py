"""Groups: the few regions of tasks, each with its own belief about a worker."""

import json
from collections.abc import Sequence

import numpy as np

from ripieno.domain import Matrix
from ripieno.plugins import needs_extra
from ripieno.route.predictors.kinds import SHARPNESS, fit_softmax
from ripieno.route.predictors.regressors import Arrays, softmax

MOST_CLUSTERS = 8
TASKS_A_CLUSTER = 40
MOST_LABELS = 32
TEMPERATURE = 0.1
"""Squared distance over which a cluster's weight falls by a factor e. Task vectors have length near one."""


class Groups:
    """Labelled kinds, inferred from the text, if the data have some; otherwise soft clusters."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = dict(arrays)
        packed = self.arrays.get("names")
        self.names: tuple[str, ...] = tuple(json.loads(packed.tobytes())) if packed is not None else ()
        """Labels of the groups; empty for clusters."""

    @classmethod
    def fit(cls, z: Matrix, labels: Sequence[str | None]) -> "Groups":
        """Learn the groups from task vectors, shape (n, d)."""
        names = sorted({label or "" for label in labels})
        if 1 < len(names) <= MOST_LABELS:
            which = np.array([names.index(label or "") for label in labels])
            weights, offsets = fit_softmax(SHARPNESS * z, which, len(names))
            packed = np.frombuffer(json.dumps(names).encode(), dtype=np.uint8).copy()
            return cls({"weights": weights, "offsets": offsets, "names": packed})
        return cls({"centres": _find_centres(z)})

    @property
    def width(self) -> int:
        """Return the length of the task vectors."""
        return len(self.arrays["weights"]) if "weights" in self.arrays else int(self.arrays["centres"].shape[1])

    def weigh(self, z: Matrix) -> Matrix:
        """Weigh the groups for each task, shape (len(z), k), rows sum to 1."""
        if "weights" in self.arrays:
            return softmax(SHARPNESS * z @ self.arrays["weights"] + self.arrays["offsets"])
        centres = self.arrays["centres"]
        distances = (z**2).sum(axis=1)[:, None] - 2.0 * z @ centres.T + (centres**2).sum(axis=1)
        return softmax(np.asarray(-distances / TEMPERATURE))


def _find_centres(z: Matrix) -> Matrix:
    with needs_extra("train", "training a router"):
        from sklearn.cluster import KMeans

    count = max(1, min(MOST_CLUSTERS, len(z) // TASKS_A_CLUSTER))
    if count == 1:
        return np.asarray(z.mean(axis=0, keepdims=True))
    return np.asarray(KMeans(count, n_init=3, random_state=0).fit(z).cluster_centers_)
