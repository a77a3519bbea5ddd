"""PairLearner: quality, cost and latency of each (task, worker) pair, with calibration and uncertainty."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ripieno.domain import Features, Matrix, WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.route.predictors.alternatives import BoostingRegressor, FactorRegressor, LogisticRegressor
from ripieno.route.predictors.calibration import Calibrator
from ripieno.route.predictors.featurizer import Featurizer
from ripieno.route.predictors.kinds import KindRegressor
from ripieno.route.predictors.learner import FitReport, Predictions, join_arrays, split_arrays
from ripieno.route.predictors.lowrank import LowRankRegressor
from ripieno.route.predictors.regressors import Arrays, ClusterRegressor, KnnRegressor, Regressor, RidgeRegressor
from ripieno.route.predictors.scale import ScaleRegressor
from ripieno.route.predictors.stack import Folds, StackRegressor, cross_predict
from ripieno.route.predictors.uncertainty import Uncertainty

FOLDS = 5
FEW_TASKS = 1500
"""Below this many tasks, folds are drawn three times, because one draw is too noisy for the mix and the margin."""

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


class PairLearner:
    """Regressors over (task, worker) pairs.

    Args:
        kind: which regressor, a key of `KINDS`.
    """

    def __init__(self, *, kind: str = "stack") -> None:
        self._kind = kind

    def fit(self, data: TrainingSet, *, rng: np.random.Generator) -> FitReport:
        """Learn from measured outcomes. Out-of-fold predictions determine mix, calibration and uncertainty."""
        self._featurizer = Featurizer.fit(data.features)
        z = self._featurizer.transform(data.features)
        self._quality = KINDS[self._kind]()
        folds = [draw_folds(data.groups, rng=rng) for _ in range(3 if len(data) < FEW_TASKS else 1)]
        held_out = [self._cross_predict(z, data, part) for part in folds]
        self._quality.fit(z, data.quality, data.labels)
        self._calibrator = Calibrator.fit(np.concatenate(held_out), np.tile(data.quality, (len(folds), 1)))
        calibrated = [self._calibrator.apply(part) for part in held_out]
        self._uncertainty = Uncertainty.fit(z, data, held_out=calibrated[0], folds=folds[0])
        self._cost = ScaleRegressor.fit(z, data.cost_usd, folds=folds[0])
        self._latency = ScaleRegressor.fit(z, data.latency_s, folds=folds[0])
        lengths = data.output_tokens if data.output_tokens is not None else np.full(data.quality.shape, np.nan)
        self._length = ScaleRegressor.fit(z, lengths, folds=folds[0])
        return FitReport(raw=held_out[0], calibrated=tuple(calibrated), folds=tuple(folds))

    def vectors(self, features: Sequence[Features]) -> Matrix:
        """Return the regressors' dense vectors, shape (len(features), d)."""
        return self._featurizer.transform(features)

    def predict(self, z: Matrix, features: Sequence[Features]) -> Predictions:
        """Predict by the regressors."""
        quality = self._calibrator.apply(self._quality.predict(z))
        unknown = np.full_like(quality, np.nan)
        cost, latency = self._cost, self._latency
        return Predictions(
            quality=quality,
            quality_sd=self._uncertainty.sd(z),
            cost_usd=cost.mean(z) if cost else unknown,
            latency_s=latency.median(z) if latency else unknown,
            output_tokens=self._length.mean(z) if self._length else None,
            latency_log_sd=latency.log_sd if latency else None,
            cost_tails=cost.mean_tails if cost else None,
            latency_tails=latency.tails if latency else None,
        )

    def state(self) -> dict[str, np.ndarray]:
        """Return all learned arrays, flat."""
        return join_arrays(
            {
                "calibrator": self._calibrator.arrays,
                "featurizer": self._featurizer.arrays,
                "quality": self._quality.state(),
                "uncertainty": self._uncertainty.arrays,
                "cost": self._cost.arrays if self._cost else {},
                "latency": self._latency.arrays if self._latency else {},
                "length": self._length.arrays if self._length else {},
            }
        )

    def restore(self, workers: Sequence[WorkerId], arrays: Arrays) -> None:
        """Restore learned arrays."""
        groups = split_arrays(arrays)
        self._calibrator = Calibrator(groups["calibrator"])
        self._featurizer = Featurizer(groups["featurizer"])
        self._uncertainty = Uncertainty(groups["uncertainty"])
        self._quality = KINDS[self._kind]()
        self._quality.restore(groups["quality"])
        self._cost = ScaleRegressor(groups["cost"]) if "cost" in groups else None
        self._latency = ScaleRegressor(groups["latency"]) if "latency" in groups else None
        self._length = ScaleRegressor(groups["length"]) if "length" in groups else None

    def _cross_predict(self, z: Matrix, data: TrainingSet, folds: Folds) -> Matrix:
        """Return out-of-fold raw quality, and set the mix of a stack."""
        if isinstance(self._quality, StackRegressor):
            return self._quality.cross_fit(z, data.quality, data.labels, folds)
        return cross_predict(KINDS[self._kind], z, data.quality, data.labels, folds)


def draw_folds(groups: Sequence[str], *, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw folds; return the rows to learn from and the held-out rows of each fold that has both."""
    fold_of = assign_folds(groups, rng=rng)
    pairs = ((np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(FOLDS))
    return [(train, test) for train, test in pairs if len(train) and len(test)]


def assign_folds(groups: Sequence[str], *, rng: np.random.Generator) -> np.ndarray:
    """Assign each task to a fold in [0, FOLDS); tasks of one group share a fold, and folds have equal group counts."""
    names = sorted(set(groups))
    folds = rng.permutation(len(names)) % FOLDS
    fold_of = dict(zip(names, folds.tolist(), strict=True))
    return np.array([fold_of[group] for group in groups])
