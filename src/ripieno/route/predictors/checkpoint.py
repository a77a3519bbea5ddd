"""Checkpoint: a learner fitted to measured outcomes. Nothing changes after the fit."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from typing import Self, cast

import numpy as np

from ripieno.domain import Features, FeatureSchema, Matrix, Worker, WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.errors import ConfigError, PredictorError
from ripieno.plugins import ForeignCall, build_plugin
from ripieno.route.predictors.belief import Belief, learn_cells, learn_prior
from ripieno.route.predictors.calibration import expected_calibration_error
from ripieno.route.predictors.cards import weigh_similar
from ripieno.route.predictors.groups import Groups
from ripieno.route.predictors.guard import choose_margin
from ripieno.route.predictors.heads import HeadsLearner
from ripieno.route.predictors.learner import FitReport, Learner, Predictions, join_arrays, narrow, split_arrays
from ripieno.route.predictors.pair import KINDS as REGRESSORS
from ripieno.route.predictors.pair import PairLearner, draw_folds
from ripieno.route.predictors.prior import UNKNOWN_LATENCY_S, list_price
from ripieno.route.predictors.regressors import Arrays, shrunk_means
from ripieno.route.predictors.scale import FLOOR
from ripieno.route.predictors.stack import predict_folds

KINDS = (*REGRESSORS, HeadsLearner.kind)
"""Built-in predictors by name."""
PLUGINS = "ripieno.predictors"
KNOWN_SHARE = 0.5
"""Prior variance of a known worker's belief, as a share of the sampling variance in the group."""
BASE = ("margin", "means", "cards", "cells", "rivals", "shares")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def make_learner(kind: str) -> Learner:
    """Make an untrained learner: a built-in one, or a plugin's.

    Raises:
        ConfigError: no plugin has that name, it cannot load, or its name is no valid folder name.
    """
    if kind == HeadsLearner.kind:
        return HeadsLearner()
    if kind in REGRESSORS:
        return PairLearner(kind=kind)
    if not _NAME.fullmatch(kind):
        raise ConfigError(f"a predictor cannot be called {kind!r}: only letters, digits, '.', '_' and '-' may be in it")
    return cast(Learner, build_plugin(PLUGINS, kind, {}, key=PLUGINS))


class Checkpoint:
    """A fitted learner, with the reference values for newcomers and single outcomes.

    Args:
        kind: name of the learner.
        learner: the fitted learner; this object owns it.
        workers: the m workers of the training set.
        arrays: learned arrays of the groups `base`, `groups` and `newcomer`.
        version: name of the saved checkpoint, if it is saved.
    """

    def __init__(
        self,
        kind: str,
        learner: Learner,
        workers: Sequence[WorkerId],
        arrays: Mapping[str, Arrays],
        *,
        version: str | None = None,
    ) -> None:
        self.kind = kind
        self.version = version or f"untrained-{kind}"
        self.workers = tuple(workers)
        self.columns = {worker: index for index, worker in enumerate(self.workers)}
        self.metrics: dict[str, float] = {}
        """Metrics of the held-out predictions; not saved with the arrays."""
        self.out_of_fold: Matrix | None = None
        """Calibrated out-of-fold predictions of the training tasks, shape (n, m); not saved."""
        self.groups = Groups(arrays["groups"])
        newcomer = arrays["newcomer"]
        self.newcomer = Belief(mean=newcomer["mean"], covariance=newcomer["covariance"])
        """Belief of a worker that was never measured."""
        self.margin = float(arrays["base"]["margin"][0])
        """Quality by which a worker must be ahead of the best single worker to be chosen."""
        self.means: Matrix = np.asarray(arrays["base"]["means"])
        """Mean quality of each worker over all known tasks, shape (m,)."""
        self.rivals: Matrix = np.asarray(arrays["base"]["rivals"])
        """Mean quality of the best known worker in each group, shape (k,)."""
        self.shares: Matrix = np.asarray(arrays["base"]["shares"])
        """Share of each group in the training tasks, shape (1, k)."""
        self._learner = learner
        self._base = {name: arrays["base"][name] for name in BASE}
        self._similar: dict[WorkerId, Matrix] = {}

    @classmethod
    def fit(cls, kind: str, data: TrainingSet, *, rng: np.random.Generator) -> Self:
        """Learn from measured outcomes.

        Raises:
            PredictorError: the learner raised, or its predictions are invalid.
        """
        learner = make_learner(kind)
        with _entering(kind, f"untrained-{kind}"):
            report = learner.fit(data, rng=rng)
            z = np.asarray(learner.vectors(data.features))
        if report is None:
            report = _cross_fit(kind, data, rng=rng)
        with _entering(kind, f"untrained-{kind}"):
            arrays = _learn_base(z, data, report)
        made = cls(kind, learner, data.workers, arrays)
        made.predict(data.features[:1])
        made.out_of_fold = report.calibrated[0]
        made.metrics = measure_fit(report.raw, report.calibrated[0], data.quality)
        return made

    @classmethod
    def restore(cls, kind: str, workers: Sequence[WorkerId], arrays: Arrays, *, version: str) -> Self:
        """Make a checkpoint from saved arrays.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays belong to other workers, or are damaged.
            PredictorError: the learner of a plugin raised.
        """
        learner, prefix = make_learner(kind), _prefix(kind)
        own = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        if kind in KINDS:
            learner.restore(workers, own)
        else:
            with _entering(kind, version):
                learner.restore(workers, own)
        return cls(kind, learner, workers, split_arrays(arrays), version=version)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all learned arrays, flat, ready for safetensors."""
        newcomer = {"mean": self.newcomer.mean, "covariance": self.newcomer.covariance}
        parts: dict[str, Arrays] = {"base": self._base, "groups": self.groups.arrays, "newcomer": newcomer}
        with _entering(self.kind, self.version):
            own = self._learner.state()
        return {f"{_prefix(self.kind)}{name}": value for name, value in own.items()} | join_arrays(parts)

    def vectors(self, features: Sequence[Features]) -> Matrix:
        """Return the learner's vectors, shape (len(features), d).

        Raises:
            PredictorError: the learner raised, or its vectors are invalid.
        """
        with _entering(self.kind, self.version):
            z = self._learner.vectors(features)
            if self.kind not in KINDS:
                wanted = (len(features), self.groups.width)
                if np.shape(z) != wanted or not np.isfinite(z).all():
                    raise ValueError(f"vectors must be finite, shape {wanted}, got shape {np.shape(z)}")
        return z

    def predict(self, features: Sequence[Features], z: Matrix | None = None) -> Predictions:
        """Predict for every known worker, without later outcomes.

        Args:
            features: features of n tasks.
            z: their vectors. Default: computed here.

        Raises:
            PredictorError: the learner raised, or its predictions are invalid.
        """
        z = self.vectors(features) if z is None else z
        with _entering(self.kind, self.version):
            found = self._learner.predict(z, features)
            if self.kind not in KINDS:
                require_sound(found, (len(features), len(self.workers)))
        return found

    def cover(self, data: TrainingSet) -> tuple[float, float]:
        """Return the shares of measured costs and latencies in their 80 % intervals; NaN if none is known."""
        found = self.predict(data.features)
        columns = [self.columns[worker] for worker in data.workers]
        cost, latency = found.cost_usd[:, columns], found.latency_s[:, columns]
        return (
            _cover(cost, found.cost_tails, columns, data.cost_usd),
            _cover(latency, found.latency_tails, columns, data.latency_s),
        )

    def prior_of(self, worker: WorkerId) -> Belief:
        """Return the belief of a worker before any later outcome."""
        column = self.columns.get(worker)
        if column is None:
            return self.newcomer
        return Belief.prior(np.diag(KNOWN_SHARE * self._base["cells"][column]))

    def weigh_similar(self, worker: Worker) -> Matrix:
        """Return the weights of the known workers for an unknown one, by similarity, shape (m,)."""
        if worker.id not in self._similar:
            self._similar[worker.id] = weigh_similar(worker, self.workers, self._base["cards"])
        return self._similar[worker.id]

    def rate(self, worker: Worker, quality: Matrix) -> Matrix:
        """Return the quality of one worker, shape (n,): its own, or for a newcomer that of similar workers."""
        column = self.columns.get(worker.id)
        return quality[:, column] if column is not None else quality @ self.weigh_similar(worker)

    def expect_scales(self, worker: Worker, features: Features, found: Predictions) -> tuple[float | None, float]:
        """Return cost and latency of one task: the worker's own, or for a newcomer those of similar workers."""
        column = self.columns.get(worker.id)
        shares = self.weigh_similar(worker) if column is None else None
        cost: float | None
        cost = float(found.cost_usd[0, column]) if shares is None else mean_known(found.cost_usd[0], shares)
        latency = float(found.latency_s[0, column]) if shares is None else mean_known(found.latency_s[0], shares)
        if isnan(cost) or (shares is not None and worker.price.usd_per_cpu_s == 0.0):
            lengths = found.output_tokens
            known = None if lengths is None else lengths[0] @ shares if shares is not None else lengths[0, column]
            cost = list_price(worker, features, None if known is None else float(known))
        return cost, UNKNOWN_LATENCY_S if isnan(latency) else latency


def infer_schema(kind: str, arrays: Arrays, *, encoder: str) -> FeatureSchema | None:
    """Infer the feature schema of a built-in predictor from its arrays; None for a plugin's.

    Raises:
        KeyError: an array is missing.
    """
    if kind not in KINDS:
        return None
    if kind == HeadsLearner.kind:
        return FeatureSchema(encoder=encoder, width=len(arrays["state/centre"]))
    return FeatureSchema(
        encoder=encoder,
        width=len(arrays["featurizer/mean"]),
        terms=len(arrays["featurizer/idf"]),
        shape=("",) * len(arrays["featurizer/shape_mean"]),
        tool_shape=("",) * len(arrays["featurizer/tool_mean"]),
    )


def _prefix(kind: str) -> str:
    """Return the prefix of a learner's array names; those of built-in learners never clash with ours."""
    return "" if kind in KINDS else "learner/"


@contextmanager
def _entering(kind: str, version: str) -> Iterator[None]:
    """Run a learner's code.

    Raises:
        PredictorError: the code raised.
    """
    with ForeignCall() as fault:
        yield
    if fault.text:
        raise PredictorError(fault.text, predictor=kind, checkpoint=version)


def _cross_fit(kind: str, data: TrainingSet, *, rng: np.random.Generator) -> FitReport:
    """Predict each fold of the training tasks by a new learner that is fitted on the others."""

    def predict(train: np.ndarray, test: np.ndarray) -> Matrix:
        learner, part = make_learner(kind), [data.features[row] for row in test]
        with _entering(kind, f"untrained-{kind}"):
            learner.fit(data.take(train), rng=rng)
            found = learner.predict(learner.vectors(part), part)
            require_sound(found, (len(part), len(data.workers)))
        return found.quality

    folds = draw_folds(data.groups, rng=rng)
    held_out = predict_folds(data.quality, folds, predict)
    return FitReport(raw=held_out, calibrated=(held_out,), folds=(folds,))


def _learn_base(z: Matrix, data: TrainingSet, report: FitReport) -> dict[str, Arrays]:
    """Learn the reference values for newcomers and single outcomes."""
    groups = Groups.fit(z, data.labels)
    weights = groups.weigh(z)
    cards = data.cards if data.cards is not None else np.full((len(data.workers), 1), np.nan)
    cells, rivals = learn_cells(weights, data.quality)
    covariance = learn_prior(weights, data.quality).covariance
    arrays: dict[str, Arrays] = {
        "base": {
            "margin": np.array([choose_margin(report.calibrated, data.quality, report.folds)]),
            "means": shrunk_means(data.quality),
            "cards": cards,
            "cells": cells,
            "rivals": rivals,
            "shares": weights.mean(axis=0, keepdims=True),
        },
        "groups": groups.arrays,
        "newcomer": {"mean": np.zeros(len(covariance)), "covariance": covariance},
    }
    return {name: narrow(part) for name, part in arrays.items()} if report.is_narrow else arrays


def require_sound(found: Predictions, shape: tuple[int, int]) -> None:
    """Check predictions.

    Raises:
        ValueError: a matrix has the wrong shape, or a number is out of range.
    """
    quality, sd = np.asarray(found.quality), np.asarray(found.quality_sd)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("quality", "quality_sd", "cost_usd", "latency_s"), shape)
    further: dict[str, tuple[int, ...]] = {"output_tokens": shape, "score": shape, "latency_log_sd": shape[1:]}
    further |= dict.fromkeys(("cost_tails", "latency_tails"), (2, shape[1]))
    shapes |= {name: wanted for name, wanted in further.items() if getattr(found, name) is not None}
    given = {name: np.shape(getattr(found, name)) for name in shapes}
    shapes |= dict.fromkeys(found.advice, shape[:1])
    given |= {name: np.shape(shares) for name, shares in found.advice.items()}
    for name, wanted in shapes.items():
        if given[name] != wanted:
            raise ValueError(f"{name} must have shape {wanted}, got {given[name]}")
    if not ((quality >= 0.0) & (quality <= 1.0)).all():
        raise ValueError("quality must be in [0, 1], and not NaN")
    if not (np.isfinite(sd) & (sd >= 0.0)).all():
        raise ValueError("quality_sd must be finite and not negative")
    for name in ("cost_usd", "latency_s"):
        values = np.asarray(getattr(found, name))
        if (np.isinf(values) | (values < 0.0)).any():
            raise ValueError(f"{name} must not be negative or infinite; NaN means unknown")


def _cover(expected: Matrix, tails: Matrix | None, columns: Sequence[int], target: Matrix) -> float:
    """Return the share of known targets, shape (n, m), in their 80 % intervals; NaN without any."""
    known = ~np.isnan(target) & ~np.isnan(expected)
    if tails is None or not known.any():
        return float("nan")
    left = np.log(np.maximum(target, FLOOR)) - np.log(expected)
    low, high = tails[:, columns]
    return float(((left >= low) & (left <= high))[known].mean())


def measure_fit(raw: Matrix, calibrated: Matrix, quality: Matrix) -> dict[str, float]:
    """Compute the metrics of held-out predictions for the model card."""
    return {
        "ece_raw": expected_calibration_error(np.clip(raw, 0, 1), quality),
        "ece": expected_calibration_error(calibrated, quality),
        "brier": float(np.nanmean((calibrated - quality) ** 2)),
    }


def mean_known(values: Matrix, weights: Matrix) -> float:
    """Return the weighted mean of the known values; NaN without any."""
    known = ~np.isnan(values)
    return float(values[known] @ weights[known] / weights[known].sum()) if known.any() else float("nan")
