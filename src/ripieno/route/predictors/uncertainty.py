"""Uncertainty: the standard deviation of an estimated quality, due to lack of data and not to chance.

    sd(x, w)^2 = scale^2 noise_w^2 (1 / n_w + (z - centre)' (Z'Z + precision)^-1 (z - centre) n / n_w)

the posterior variance of a Bayesian linear model, with the out-of-fold noise. The scale is chosen so that 80 %
intervals of mean quality over groups of tasks cover 80 % of the measured means.

Source:
    Bishop (2006), Pattern recognition and machine learning, section 3.3.2.
"""

import numpy as np

from ripieno.domain import Matrix
from ripieno.domain.training import TrainingSet, column_means
from ripieno.route.predictors.regressors import Arrays
from ripieno.route.predictors.stack import Folds

PRECISION = 10.0
MOST_SD = 0.5
COVERAGE, SDS = 0.8, 1.2816
"""Intervals of 80 % extend 1.2816 standard deviations of a normal to each side."""
LEAST_CELL = 8
SCALES = np.geomspace(0.05, 20.0, 60)


class Uncertainty:
    """Standard deviation of estimated quality."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = dict(arrays)

    @classmethod
    def fit(cls, z: Matrix, data: TrainingSet, *, held_out: Matrix, folds: Folds) -> "Uncertainty":
        """Learn noise and scale from out-of-fold predictions, shape (n, m).

        Groups are formed within a fold, because over all folds the errors of a mean cancel.
        """
        centre = z.mean(axis=0)
        design = z - centre
        samples = np.maximum((~np.isnan(data.quality)).sum(axis=0), 0.5)
        left = data.quality - held_out
        noise = np.sqrt(np.nan_to_num(column_means((left - column_means(left)) ** 2), nan=0.25))
        plain = cls(
            {
                "centre": centre,
                "inverse": np.linalg.inv(design.T @ design + PRECISION * np.eye(z.shape[1])),
                "samples": samples,
                "share": len(z) / samples,
                "noise": noise,
                "scale": np.ones(1),
            }
        )
        sd = plain.sd(z)
        parts = [gather_cells(held_out[test], sd[test], data.take(test)) for _, test in folds]
        cells = np.concatenate([np.zeros((0, 4)), *parts])
        return cls({**plain.arrays, "scale": np.array([choose_scale(cells)])})

    def sd(self, z: Matrix) -> Matrix:
        """Compute the standard deviation of each pair, shape (len(z), m)."""
        arrays = self.arrays
        centred = z - arrays["centre"]
        leverage = np.einsum("nd,nd->n", centred @ arrays["inverse"], centred)
        spread = 1.0 / arrays["samples"] + leverage[:, None] * arrays["share"]
        return np.asarray(np.minimum(arrays["scale"] * arrays["noise"] * np.sqrt(spread), MOST_SD))


def gather_cells(predicted: Matrix, sd: Matrix, data: TrainingSet) -> Matrix:
    """Average predictions and outcomes over groups of tasks, for each worker.

    Returns:
        Shape (cells, 4): predicted mean, measured mean, mean sd, sampling variance of the measured mean.
    """
    labels = np.array([label or "" for label in data.labels])
    rows: list[tuple[float, float, float, float]] = []
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        for part in np.array_split(inside, max(1, len(inside) // 100)):
            known = ~np.isnan(data.quality[part])
            for column in np.flatnonzero(known.sum(axis=0) >= LEAST_CELL):
                met = data.quality[part, column][known[:, column]]
                expected = predicted[part, column][known[:, column]]
                chance = float((met - expected).var() / len(met))
                rows.append(
                    (float(expected.mean()), float(met.mean()), float(sd[part, column].mean()), max(chance, 1e-6))
                )
    return np.array(rows).reshape(-1, 4)


def cover(cells: Matrix, scale: float = 1.0) -> float:
    """Compute the share of cells whose measured mean is in its 80 % interval; NaN without cells."""
    if not len(cells):
        return float("nan")
    half = SDS * np.sqrt((scale * cells[:, 2]) ** 2 + cells[:, 3])
    return float((np.abs(cells[:, 0] - cells[:, 1]) <= half).mean())


def choose_scale(cells: Matrix) -> float:
    """Choose the lowest scale at which 80 % intervals cover 80 % of the cells; 1 without cells."""
    if not len(cells):
        return 1.0
    enough = [scale for scale in SCALES if cover(cells, scale) >= COVERAGE]
    return float(enough[0]) if enough else float(SCALES[-1])
