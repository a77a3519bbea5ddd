"""Learner: the interface of trained predictors, built-in ones and plugins of `ripieno.predictors` alike.

A learner only learns from a training set and predicts. Beliefs, newcomers, probes, promotion and pages are built around
it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ripieno.domain import Estimate, Features, Matrix, WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.route.predictors.regressors import Arrays
from ripieno.route.predictors.stack import Folds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Predictions for n tasks on m known workers. Every matrix has the shape (n, m) unless stated otherwise."""

    quality: Matrix
    """In [0, 1]."""
    quality_sd: Matrix
    """Standard deviation of `quality`, at least 0."""
    cost_usd: Matrix
    """NaN if no cost was measured: the price list then decides."""
    latency_s: Matrix
    """NaN if no latency was measured."""
    output_tokens: Matrix | None = None
    """Expected output tokens, if lengths were measured."""
    score: Matrix | None = None
    """Raw scores of the workers, if the predictor has some."""
    latency_log_sd: Matrix | None = None
    """Standard deviation of each worker's log latency, shape (m,)."""
    cost_tails: Matrix | None = None
    """10 % and 90 % quantile of the logarithm of a cost over the expected one, shape (2, m)."""
    latency_tails: Matrix | None = None
    """The same for latencies."""
    advice: Mapping[str, Matrix] = field(default_factory=dict)
    """Further outputs for each task, in [0, 1], each of shape (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitReport:
    """Out-of-fold predictions of the training tasks."""

    raw: Matrix
    """Before calibration, shape (n, m)."""
    calibrated: tuple[Matrix, ...]
    """One matrix for each draw of folds."""
    folds: tuple[Folds, ...]
    """The draws of folds: rows to learn from, rows held out."""
    is_narrow: bool = False
    """True if large arrays have 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """All outputs of a predictor for one task."""

    estimates: tuple[Estimate, ...]
    """One per worker, in order."""
    kind: str | None = None
    """Kind of the task: stated, or inferred if the predictor can."""
    advice: Mapping[str, float] = field(default_factory=dict)
    """Further outputs in [0, 1]; empty if the predictor has none."""


class Learner(Protocol):
    """Learns from measured outcomes, and predicts outcomes of workers on tasks."""

    def fit(self, data: TrainingSet, *, rng: np.random.Generator) -> FitReport | None:
        """Learn from measured outcomes.

        Returns:
            Held-out predictions. None lets the caller make them with further learners on parts of the data.
        """
        ...

    def vectors(self, features: Sequence[Features]) -> Matrix:
        """Return finite vectors, shape (len(features), d), which are close for similar tasks."""
        ...

    def predict(self, z: Matrix, features: Sequence[Features]) -> Predictions:
        """Predict for every worker of the training set, in order; `z` are the `vectors` of `features`."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return all learned arrays by name, ready for safetensors."""
        ...

    def restore(self, workers: Sequence[WorkerId], arrays: Arrays) -> None:
        """Restore learned arrays.

        Raises:
            ValueError: they belong to other workers, or are damaged.
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
