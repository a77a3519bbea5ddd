"""PairPredictor: quality, cost and latency of each (task, worker) pair, with calibration and uncertainty."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ripieno.domain import Features, Matrix, WorkerId
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
from ripieno.route.predictors.trained import Predicted, TrainedPredictor, split_arrays
from ripieno.route.predictors.uncertainty import Uncertainty

FOLDS = 5
FEW_TASKS = 1500
"""Below this many tasks, folds are drawn anew two more times: one draw says too little of the mix and the margin."""

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


class PairPredictor(TrainedPredictor):
    """Regressors over (task, worker) pairs.

    Args:
        kind: which regressor, a key of `KINDS`.
    """

    def __init__(self, *, kind: str = "stack") -> None:
        self.kind = kind
        super().__init__()

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
        self.metrics = measure_fit(held_out[0], calibrated[0], data.quality)
        margin = choose_margin(calibrated, data.quality, folds)
        self._learn_base(z, data, margin=margin, means=shrunk_means(data.quality))
        self._cost = ScaleRegressor.fit(z, data.cost_usd, folds=folds[0])
        self._latency = ScaleRegressor.fit(z, data.latency_s, folds=folds[0])
        lengths = data.output_tokens if data.output_tokens is not None else np.full(data.quality.shape, np.nan)
        self._length = ScaleRegressor.fit(z, lengths, folds=folds[0])

    def predict(self, z: Matrix, features: Sequence[Features]) -> Predicted:
        """What the regressors expect."""
        quality = self._calibrator.apply(self._quality.predict(z))
        unknown = np.full_like(quality, np.nan)
        return Predicted(
            quality=quality,
            quality_sd=self._uncertainty.sd(z),
            cost_usd=self._cost.mean(z) if self._cost else unknown,
            latency_s=self._latency.median(z) if self._latency else unknown,
            output_tokens=self._length.mean(z) if self._length else None,
        )

    def latency_log_sd(self, column: int) -> float:
        """Spread of the logarithm of a known worker's latency."""
        return float(self._latency.log_sd[column]) if self._latency else super().latency_log_sd(column)

    def cover_cost(self, data: TrainingSet) -> float:
        """Share of measured costs in their 80 % intervals; NaN where nothing is known of them."""
        return self._cover(self._cost, data, data.cost_usd)

    def cover_latency(self, data: TrainingSet) -> float:
        """Share of measured latencies in their 80 % intervals; NaN where nothing is known of them."""
        return self._cover(self._latency, data, data.latency_s)

    def vectors(self, features: Sequence[Features]) -> Matrix:
        """The dense vectors that the regressors see, shape (len(features), d)."""
        return self._featurizer.transform(features)

    def state(self) -> dict[str, np.ndarray]:
        """All learned arrays, flat, ready for safetensors."""
        groups: dict[str, Mapping[str, np.ndarray]] = {
            "calibrator": self._calibrator.arrays,
            "featurizer": self._featurizer.arrays,
            "quality": self._quality.state(),
            "uncertainty": self._uncertainty.arrays,
            "cost": self._cost.arrays if self._cost else {},
            "latency": self._latency.arrays if self._latency else {},
            "length": self._length.arrays if self._length else {},
        }
        own = {f"{group}/{name}": value for group, arrays in groups.items() for name, value in arrays.items()}
        return self._base_state() | own

    def restore(self, workers: Sequence[WorkerId], arrays: Mapping[str, np.ndarray], *, version: str) -> None:
        """Take learned arrays back."""
        groups = split_arrays(arrays)
        self._set_workers(workers)
        self.checkpoint = version
        self._restore_base(groups)
        self._calibrator = Calibrator(groups["calibrator"])
        self._featurizer = Featurizer(groups["featurizer"])
        self._uncertainty = Uncertainty(groups["uncertainty"])
        self._quality = KINDS[self.kind]()
        self._quality.restore(groups["quality"])
        self._cost = ScaleRegressor(groups["cost"]) if "cost" in groups else None
        self._latency = ScaleRegressor(groups["latency"]) if "latency" in groups else None
        self._length = ScaleRegressor(groups["length"]) if "length" in groups else None

    def _cover(self, scale: ScaleRegressor | None, data: TrainingSet, target: Matrix) -> float:
        return scale.cover(self.vectors(data.features), self._widen(data, target)) if scale else float("nan")

    def _cross_predict(self, z: Matrix, data: TrainingSet, folds: Folds) -> Matrix:
        """Out-of-fold raw quality, groups kept together; sets the stack's mix on the way."""
        if isinstance(self._quality, StackRegressor):
            return self._quality.cross_fit(z, data.quality, data.labels, folds)
        return cross_predict(KINDS[self.kind], z, data.quality, data.labels, folds)


def measure_fit(raw: Matrix, calibrated: Matrix, quality: Matrix) -> dict[str, float]:
    """Figures of out-of-fold predictions for the card."""
    return {
        "ece_raw": expected_calibration_error(np.clip(raw, 0, 1), quality),
        "ece": expected_calibration_error(calibrated, quality),
        "brier": float(np.nanmean((calibrated - quality) ** 2)),
    }


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
