"""Learner: the role of what is trained. Built-in predictors and plugins of `ripieno.predictors` fill it alike.

A learner only learns from a training set and predicts. All else is made around it: beliefs that single outcomes move,
newcomers, probes, promotion and pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ripieno.domain import Estimate, Features, Matrix, WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.route.predictors.stack import Folds

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What is expected of n tasks on m known workers, each of shape (n, m)."""

    quality: Matrix
    """In [0, 1]."""
    quality_sd: Matrix
    """How far `quality` may be off, at least 0."""
    cost_usd: Matrix
    """NaN where no cost was measured: then the price list decides."""
    latency_s: Matrix
    """NaN where no latency was measured."""
    output_tokens: Matrix | None = None
    """Mean length of the answers, where lengths were measured."""
    score: Matrix | None = None
    """Raw scores of the workers, where the predictor chooses by some."""
    latency_log_sd: Matrix | None = None
    """Spread of the logarithm of each worker's latency, shape (m,)."""
    cost_tails: Matrix | None = None
    """10 % and 90 % quantile of the logarithm of a cost over the expected one, shape (2, m)."""
    latency_tails: Matrix | None = None
    """The same of latencies."""
    advice: Mapping[str, Matrix] = field(default_factory=dict)
    """Further shares of each task, in [0, 1], each of shape (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitReport:
    """What a fit predicts of the training tasks, each by a fit without it."""

    raw: Matrix
    """Before calibration, shape (n, m)."""
    calibrated: tuple[Matrix, ...]
    """One matrix for each draw of folds."""
    folds: tuple[Folds, ...]
    """The draws of folds: rows to learn from, rows held out."""
    is_narrow: bool = False
    """Whether large arrays are kept in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """All that a predictor says of one task."""

    estimates: tuple[Estimate, ...]
    """One for each worker, in order."""
    kind: str | None = None
    """The kind of task: stated, or inferred where the predictor can tell it."""
    advice: Mapping[str, float] = field(default_factory=dict)
    """Further shares in [0, 1]; empty where the predictor has no head for any."""


class Learner(Protocol):
    """Learns from measured outcomes what workers do on tasks."""

    def fit(self, data: TrainingSet, *, rng: np.random.Generator) -> FitReport | None:
        """Learn from measured outcomes.

        Returns:
            Held-out predictions, or None: then further learners are fitted on parts of the data to make them.
        """
        ...

    def vectors(self, features: Sequence[Features]) -> Matrix:
        """Return finite vectors in which tasks that are alike lie close, shape (len(features), d)."""
        ...

    def predict(self, z: Matrix, features: Sequence[Features]) -> Predictions:
        """Predict for every worker of the training set, in order; `z` is what `vectors` made of `features`."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return all learned arrays by name, ready for safetensors."""
        ...

    def restore(self, workers: Sequence[WorkerId], arrays: Arrays) -> None:
        """Take learned arrays back.

        Raises:
            ValueError: they are of other workers, or damaged.
        """
        ...


def split_arrays(arrays: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """Turn flat names `group/name` into a table of tables."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, value in arrays.items():
        group, _, key = name.partition("/")
        groups.setdefault(group, {})[key] = value
    return groups


def join_arrays(groups: Mapping[str, Arrays]) -> dict[str, np.ndarray]:
    """Turn a table of tables into flat names `group/name`."""
    return {f"{group}/{name}": value for group, arrays in groups.items() for name, value in arrays.items()}


def narrow(arrays: Arrays) -> dict[str, np.ndarray]:
    """Return arrays with the large ones in 32 bits."""
    return {
        name: value.astype(np.float32) if value.dtype == np.float64 and value.size > 256 else value
        for name, value in arrays.items()
    }
