"""PairPredictor: quality, cost and latency of each (task, worker) pair, with calibration and uncertainty."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ripieno.domain import Estimate, Features, Matrix, Worker, WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.route.predictors.alternatives import BoostingRegressor, FactorRegressor, LogisticRegressor
from ripieno.route.predictors.calibration import Calibrator, expected_calibration_error
from ripieno.route.predictors.featurizer import Featurizer
from ripieno.route.predictors.guard import choose_margin
from ripieno.route.predictors.kinds import KindRegressor
from ripieno.route.predictors.lowrank import LowRankRegressor
from ripieno.route.predictors.regressors import (
    ClusterRegressor,
    KnnRegressor,
    Regressor,
    RidgeRegressor,
    shrunk_means,
)
from ripieno.route.predictors.scale import ScaleRegressor
from ripieno.route.predictors.stack import Folds, StackRegressor, cross_predict
from ripieno.route.predictors.uncertainty import Uncertainty

FOLDS = 5
FEW_TASKS = 1500
"""Below this many tasks, folds are drawn anew two more times: one draw says too little of the mix and the margin."""
UNMEASURED_SD = 0.3
"""Quality of a worker without outcomes is uncertain by this much: the spread of workers in the outcome sets."""
PRIOR_OUTPUT_TOKENS = 256.0

KINDS: Mapping[str, Callable[[], Regressor]] = {
    "stack": StackRegressor,
    "ridge": RidgeRegressor,
    "lowrank": LowRankRegressor,
    "knn": KnnRegressor,
    "clusters": ClusterRegressor,
    "kinds": KindRegressor,
    "factors": FactorRegressor,
    "logistic": LogisticRegressor,
    "boosting": BoostingRegressor,
}


class PairPredictor:
    """One class for training and serving.

    Args:
        kind: which regressor, a key of `KINDS`.
    """

    def __init__(self, *, kind: str = "stack") -> None:
        self.kind = kind
        self.version = f"untrained-{kind}"
        self.workers: tuple[WorkerId, ...] = ()
        self.metrics: dict[str, float] = {}
        self.out_of_fold: Matrix | None = None
        """Calibrated predictions of the training tasks, each by a fit without it, shape (n, m); not saved."""
        self._column: dict[WorkerId, int] = {}

    @property
    def margin(self) -> float:
        """Quality by which a worker must be ahead before the best single worker is left for it."""
        return float(self._arrays["margin"][0])

    @property
    def means(self) -> Matrix:
        """Mean quality of each worker over all known tasks, shape (m,)."""
        return np.asarray(self._arrays["means"])

    def fit(self, data: TrainingSet, *, rng: np.random.Generator) -> None:
        """Learn from measured outcomes; out-of-fold predictions set mix, calibration, margin and uncertainty."""
        self._set_workers(data.workers)
        self._featurizer = Featurizer.fit(data.features)
        z = self._featurizer.transform(data.features)
        self._quality = KINDS[self.kind]()
        folds = [draw_folds(data.groups, rng=rng) for _ in range(3 if len(data) < FEW_TASKS else 1)]
        held_out = [self._cross_predict(z, data, part) for part in folds]
        self._quality.fit(z, data.quality, data.labels)
        self._calibrator = Calibrator.fit(np.concatenate(held_out), np.tile(data.quality, (len(folds), 1)))
        calibrated = [self._calibrator.apply(part) for part in held_out]
        self.out_of_fold = calibrated[0]
        self._uncertainty = Uncertainty.fit(z, data, held_out=calibrated[0], folds=folds[0])
        self.metrics = {
            "ece_raw": expected_calibration_error(np.clip(held_out[0], 0, 1), data.quality),
            "ece": expected_calibration_error(calibrated[0], data.quality),
            "brier": float(np.nanmean((calibrated[0] - data.quality) ** 2)),
        }
        margin = choose_margin(calibrated, data.quality, folds)
        self._arrays = {"margin": np.array([margin]), "means": shrunk_means(data.quality)}
        self._cost = ScaleRegressor.fit(z, data.cost_usd, folds=folds[0])
        self._latency = ScaleRegressor.fit(z, data.latency_s, folds=folds[0])

    def estimate(self, features: Features, workers: Sequence[Worker]) -> tuple[Estimate, ...]:
        """Estimate one task on each of `workers`, in order; unmeasured workers get the pool's prior."""
        rows = self.estimate_many([features])
        return tuple(self._build(worker, features, *(row[0] for row in rows)) for worker in workers)

    def estimate_many(self, features: Sequence[Features]) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """Quality, its standard deviation, cost and median latency, each of shape (len(features), m)."""
        z = self._featurizer.transform(features)
        quality = self._calibrator.apply(self._quality.predict(z))
        cost = self._cost.mean(z) if self._cost else np.full_like(quality, np.nan)
        latency = self._latency.median(z) if self._latency else np.full_like(quality, np.nan)
        return quality, self._uncertainty.sd(z), cost, latency

    def cover_cost(self, data: TrainingSet) -> float:
        """Share of measured costs in their 80 % intervals; NaN where nothing is known of them."""
        return self._cost.cover(self._featurizer.transform(data.features), data.cost_usd) if self._cost else np.nan

    def cover_latency(self, data: TrainingSet) -> float:
        """Share of measured latencies in their 80 % intervals; NaN where nothing is known of them."""
        return (
            self._latency.cover(self._featurizer.transform(data.features), data.latency_s) if self._latency else np.nan
        )

    def vectors(self, features: Sequence[Features]) -> Matrix:
        """The dense vectors that the regressors see, shape (len(features), d)."""
        return self._featurizer.transform(features)

    def state(self) -> dict[str, np.ndarray]:
        """All learned arrays, flat, ready for safetensors."""
        groups: dict[str, Mapping[str, np.ndarray]] = {
            "pair": self._arrays,
            "calibrator": self._calibrator.arrays,
            "featurizer": self._featurizer.arrays,
            "quality": self._quality.state(),
            "uncertainty": self._uncertainty.arrays,
            "cost": self._cost.arrays if self._cost else {},
            "latency": self._latency.arrays if self._latency else {},
        }
        return {f"{group}/{name}": value for group, arrays in groups.items() for name, value in arrays.items()}

    def restore(self, workers: Sequence[WorkerId], arrays: Mapping[str, np.ndarray], *, version: str) -> None:
        """Take learned arrays back."""
        needed = ("pair", "calibrator", "featurizer", "quality", "uncertainty")
        groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in needed}
        for name, value in arrays.items():
            group, _, key = name.partition("/")
            groups.setdefault(group, {})[key] = value
        self._set_workers(workers)
        self.version = version
        self._arrays = groups["pair"]
        self._calibrator = Calibrator(groups["calibrator"])
        self._featurizer = Featurizer(groups["featurizer"])
        self._uncertainty = Uncertainty(groups["uncertainty"])
        self._quality = KINDS[self.kind]()
        self._quality.restore(groups["quality"])
        self._cost = ScaleRegressor(groups["cost"]) if groups.get("cost") else None
        self._latency = ScaleRegressor(groups["latency"]) if groups.get("latency") else None

    def _set_workers(self, workers: Sequence[WorkerId]) -> None:
        self.workers = tuple(workers)
        self._column = {worker: index for index, worker in enumerate(self.workers)}

    def _cross_predict(self, z: Matrix, data: TrainingSet, folds: Folds) -> Matrix:
        """Out-of-fold raw quality, groups kept together; sets the stack's mix on the way."""
        if isinstance(self._quality, StackRegressor):
            return self._quality.cross_fit(z, data.quality, data.labels, folds)
        return cross_predict(KINDS[self.kind], z, data.quality, data.labels, folds)

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
                mean_quality=float(self.means.mean()),
            )
        return Estimate(
            worker=worker.id,
            quality=float(quality[column]),
            quality_sd=float(sd[column]),
            cost_usd=float(_or(cost[column], listed)),
            latency_s=float(_or(latency[column], 1.0)),
            latency_log_sd=float(self._latency.log_sd[column]) if self._latency else 0.5,
            mean_quality=float(self.means[column]),
        )


def draw_folds(groups: Sequence[str], *, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows held out, for each fold that has both."""
    fold_of = assign_folds(groups, rng=rng)
    pairs = ((np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(FOLDS))
    return [(train, test) for train, test in pairs if len(train) and len(test)]


def assign_folds(groups: Sequence[str], *, rng: np.random.Generator) -> np.ndarray:
    """Give each task a fold in [0, FOLDS); tasks of one group share theirs, and folds hold as many groups each."""
    names = sorted(set(groups))
    folds = rng.permutation(len(names)) % FOLDS
    fold_of = dict(zip(names, folds.tolist(), strict=True))
    return np.array([fold_of[group] for group in groups])


def _or(value: float, default: float) -> float:
    return default if np.isnan(value) else value
