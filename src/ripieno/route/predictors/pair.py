"""PairPredictor: quality, cost and latency of each (task, worker) pair, with calibration and uncertainty."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ripieno.domain import Estimate, Features, Matrix, Worker, WorkerId
from ripieno.domain.training import TrainingSet, column_means
from ripieno.route.predictors.calibration import BetaCalibrator, expected_calibration_error
from ripieno.route.predictors.featurizer import Featurizer
from ripieno.route.predictors.regressors import (
    ClusterRegressor,
    KindRegressor,
    KnnRegressor,
    Regressor,
    RidgeRegressor,
    StackRegressor,
)

FOLDS = 5
LEVERAGE_PRECISION = 10.0
UNMEASURED_SD = 0.3
"""Quality of a worker without outcomes is uncertain by this much: the spread of workers in the outcome sets."""
PRIOR_OUTPUT_TOKENS = 256.0
FLOOR = 1e-12

KINDS: Mapping[str, Callable[[], Regressor]] = {
    "stack": StackRegressor,
    "ridge": RidgeRegressor,
    "knn": KnnRegressor,
    "clusters": ClusterRegressor,
    "kinds": KindRegressor,
}


class PairPredictor:
    """One class for training and serving.

    Args:
        kind: which regressor: stack, ridge, knn, clusters or kinds.
    """

    def __init__(self, *, kind: str = "stack") -> None:
        self.kind = kind
        self.version = f"untrained-{kind}"
        self.workers: tuple[WorkerId, ...] = ()
        self.metrics: dict[str, float] = {}
        self._column: dict[WorkerId, int] = {}

    def fit(self, data: TrainingSet, *, rng: np.random.Generator) -> None:
        """Learn from measured outcomes; out-of-fold predictions set the mix, the calibration and the noise."""
        self._set_workers(data.workers)
        self._featurizer = Featurizer.fit(data.features)
        z = self._featurizer.transform(data.features)
        self._quality = KINDS[self.kind]()
        held_out = self._cross_predict(z, data, rng=rng)
        self._quality.fit(z, data.quality, data.kinds)
        self._calibrator = BetaCalibrator.fit(held_out, data.quality)
        calibrated = self._calibrator.apply(held_out)
        self.metrics = {
            "ece_raw": expected_calibration_error(np.clip(held_out, 0, 1), data.quality),
            "ece": expected_calibration_error(calibrated, data.quality),
            "brier": float(np.nanmean((calibrated - data.quality) ** 2)),
        }
        self._arrays = {"noise": _column_sd(data.quality - calibrated), **_leverage(z, data)}
        self._cost = self._fit_scale(z, data.cost_usd, data)
        self._latency = self._fit_scale(z, data.latency_s, data)
        self._arrays["latency_sd"] = np.nan_to_num(_column_sd(_log(data.latency_s)), nan=0.5)

    def estimate(self, features: Features, workers: Sequence[Worker]) -> tuple[Estimate, ...]:
        """Estimate one task on each of `workers`, in order; unmeasured workers get the pool's prior."""
        rows = self.estimate_many([features])
        return tuple(self._build(worker, features, *(row[0] for row in rows)) for worker in workers)

    def estimate_many(self, features: Sequence[Features]) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """Quality, its standard deviation, cost and latency, each of shape (len(features), m)."""
        z = self._featurizer.transform(features)
        quality = self._calibrator.apply(self._quality.predict(z))
        centred = z - self._arrays["centre"]
        leverage = np.einsum("ij,jk,ik->i", centred, self._arrays["inverse"], centred)
        spread = 1.0 / self._arrays["samples"] + leverage[:, None] * self._arrays["share"]
        sd = np.minimum(self._arrays["noise"] * np.sqrt(spread), 0.5)
        cost = np.exp(self._cost.predict(z)) if self._cost else np.full_like(quality, np.nan)
        latency = np.exp(self._latency.predict(z)) if self._latency else np.full_like(quality, np.nan)
        return quality, sd, cost, latency

    def vectors(self, features: Sequence[Features]) -> Matrix:
        """The dense vectors that the regressors see, shape (len(features), d)."""
        return self._featurizer.transform(features)

    def state(self) -> dict[str, np.ndarray]:
        """All learned arrays, flat, ready for safetensors."""
        groups: dict[str, Mapping[str, np.ndarray]] = {
            "pair": {**self._arrays, "calibrator": self._calibrator.coefficients},
            "featurizer": self._featurizer.arrays,
            "quality": self._quality.state(),
            "cost": self._cost.state() if self._cost else {},
            "latency": self._latency.state() if self._latency else {},
        }
        return {f"{group}/{name}": value for group, arrays in groups.items() for name, value in arrays.items()}

    def restore(self, workers: Sequence[WorkerId], arrays: Mapping[str, np.ndarray], *, version: str) -> None:
        """Take learned arrays back."""
        groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in ("pair", "featurizer", "quality")}
        for name, value in arrays.items():
            group, _, key = name.partition("/")
            groups.setdefault(group, {})[key] = value
        self._set_workers(workers)
        self.version = version
        self._calibrator = BetaCalibrator(groups["pair"].pop("calibrator"))
        self._arrays = groups["pair"]
        self._featurizer = Featurizer(groups["featurizer"])
        self._quality = self._restore(groups["quality"])
        self._cost = self._restore(groups["cost"]) if groups.get("cost") else None
        self._latency = self._restore(groups["latency"]) if groups.get("latency") else None

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> Regressor:
        regressor = KINDS[self.kind]()
        regressor.restore(arrays)
        return regressor

    def _set_workers(self, workers: Sequence[WorkerId]) -> None:
        self.workers = tuple(workers)
        self._column = {worker: index for index, worker in enumerate(self.workers)}

    def _cross_predict(self, z: Matrix, data: TrainingSet, *, rng: np.random.Generator) -> Matrix:
        """Out-of-fold raw quality, groups kept together; sets the stack's mix on the way."""
        folds, stated = assign_folds(data.groups, rng=rng), data.kinds
        members = self._quality.members if isinstance(self._quality, StackRegressor) else {self.kind: self._quality}
        held_out = {name: np.zeros_like(data.quality) for name in members}
        for fold in range(FOLDS):
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            if not len(train) or not len(test):
                continue
            kinds = [stated[int(row)] for row in train]
            for name, member in members.items():
                member.fit(z[train], data.quality[train], kinds)
                held_out[name][test] = member.predict(z[test])
        if isinstance(self._quality, StackRegressor):
            self._quality.weigh(held_out, data.quality)
            return np.broadcast_to(self._quality.mix(held_out), data.quality.shape)
        return held_out[self.kind]

    def _fit_scale(self, z: Matrix, target: Matrix, data: TrainingSet) -> Regressor | None:
        """Regress log cost or log latency; None where nothing is known of it."""
        if np.isnan(target).all():
            return None
        regressor = KINDS[self.kind]()
        regressor.fit(z, _log(target), data.kinds)
        return regressor

    def _build(
        self, worker: Worker, features: Features, quality: Matrix, sd: Matrix, cost: Matrix, latency: Matrix
    ) -> Estimate:
        listed = worker.price.charge(input_tokens=features.prompt_tokens, output_tokens=PRIOR_OUTPUT_TOKENS, cpu_s=1.0)
        column = self._column.get(worker.id)
        if column is None:
            return Estimate(
                worker=worker.id,
                quality=float(quality.mean()),
                quality_sd=UNMEASURED_SD,
                cost_usd=listed,
                latency_s=float(_or(np.median(latency), 1.0)),
                is_measured=False,
            )
        return Estimate(
            worker=worker.id,
            quality=float(quality[column]),
            quality_sd=float(sd[column]),
            cost_usd=float(_or(cost[column], listed)),
            latency_s=float(_or(latency[column], 1.0)),
            latency_log_sd=float(self._arrays["latency_sd"][column]),
        )


def assign_folds(groups: Sequence[str], *, rng: np.random.Generator) -> np.ndarray:
    """Give each task a fold in [0, FOLDS); tasks of one group share theirs, and folds hold as many groups each."""
    names = sorted(set(groups))
    folds = rng.permutation(len(names)) % FOLDS
    fold_of = dict(zip(names, folds.tolist(), strict=True))
    return np.array([fold_of[group] for group in groups])


def _leverage(z: Matrix, data: TrainingSet) -> dict[str, np.ndarray]:
    """What the uncertainty of a prediction is made of: distance from known tasks, and samples of the worker."""
    centre = z.mean(axis=0)
    design = z - centre
    inverse = np.linalg.inv(design.T @ design + LEVERAGE_PRECISION * np.eye(z.shape[1]))
    samples = np.maximum((~np.isnan(data.quality)).sum(axis=0), 0.5)
    return {"centre": centre, "inverse": inverse, "samples": samples, "share": len(z) / samples}


def _column_sd(matrix: Matrix) -> Matrix:
    centred = matrix - column_means(matrix)
    return np.sqrt(np.nan_to_num(column_means(centred**2), nan=0.25))


def _log(matrix: Matrix) -> Matrix:
    return np.log(np.maximum(matrix, FLOOR))


def _or(value: float, default: float) -> float:
    return default if np.isnan(value) else value
