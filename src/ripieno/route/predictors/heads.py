"""Heads: linear heads over the frozen state of a backbone, for worker, workflow, verifier and abstention.

The worker head is trained towards softmax(r / tau) of measured qualities r, with workers without an outcome masked. A
level head predicts the difficulty of the task for all workers. Quality is computed from both:

    q(x, w) = calibrate(level(x) + tau (logit_w - mean logit))

A worker that is added later gets a weighted mean of the rows of similar workers. The rows of others do not change.

Source:
    Sakana AI (2025), TRINITY, for heads on a small frozen model; Hinton et al. (2015), for soft targets.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.domain import Features, Matrix, WorkerId
from ripieno.domain.training import TrainingSet, column_means
from ripieno.route.predictors.calibration import Calibrator
from ripieno.route.predictors.learner import FitReport, Predictions, join_arrays, narrow, split_arrays
from ripieno.route.predictors.pair import draw_folds
from ripieno.route.predictors.regressors import Arrays, sigmoid, softmax
from ripieno.route.predictors.scale import UNKNOWN_LOG_SD
from ripieno.route.predictors.stack import Folds, predict_folds

TEMPERATURE = 0.25
"""Softness of the targets: a difference of 0.25 in quality is a factor e."""
EPOCHS, PATIENCE, BATCH = 200, 12, 64
RATE, DECAY = 0.01, 1e-3
VALIDATION_SHARE = 0.15
MOST_CLASS_WEIGHT = 5.0
LEAST_SD = 0.02
CASCADE_PRICE = 0.2
"""Price of the best worker, in units of quality, in the targets of the workflow head."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """Training targets of the heads."""

    worker: Matrix
    """Rows sum to 1; zero if the worker has no outcome, shape (n, m)."""
    known: "np.ndarray"
    """True if the worker has an outcome, shape (n, m)."""
    shares: Matrix
    """Level, workflow `cascade`, verify, abstain; each in [0, 1], shape (n, 4)."""
    weights: Matrix
    """Weight of each task, which balances the classes of best workers, shape (n,)."""


class HeadsLearner:
    """Heads on the encoder's vectors: a language model's state at the last token, or a sentence vector."""

    kind = "heads"

    def fit(self, data: TrainingSet, *, rng: np.random.Generator) -> FitReport:
        """Train the heads with a validation split and early stopping; calibrate on out-of-fold predictions."""
        embeddings = np.stack([item.embedding for item in data.features]).astype(np.float64)
        self._state = {"centre": embeddings.mean(axis=0), "scale": np.array([embeddings.std() + 1e-9])}
        z = self.vectors(data.features)
        folds = draw_folds(data.groups, rng=rng)
        raw = _cross_predict(z, data, folds, rng=rng)
        self._heads = train_heads(z, make_targets(data), rng=rng)
        self._calibrator = Calibrator.fit(raw, data.quality)
        calibrated = self._calibrator.apply(raw)
        self._scales = _fit_scales(data)
        self._scales["sd"] = _spread_of(data, calibrated)
        self._digest = _digest(data.workers)
        self.restore(data.workers, self.state())  # with the precision of saved arrays
        return FitReport(raw=raw, calibrated=(calibrated,), folds=(folds,), is_narrow=True)

    def vectors(self, features: Sequence[Features]) -> Matrix:
        """Return centred and scaled states of the backbone, shape (len(features), d)."""
        embeddings = np.stack([item.embedding for item in features])
        return np.asarray((embeddings - self._state["centre"]) / self._state["scale"] / np.sqrt(embeddings.shape[1]))

    def predict(self, z: Matrix, features: Sequence[Features]) -> Predictions:
        """Predict quality from logits and level, and cost and latency from the length of the prompt."""
        logits, shares = _rate(z, self._heads, "worker"), sigmoid(_rate(z, self._heads, "shares"))
        quality = self._calibrator.apply(_read_quality(logits, shares))
        lengths = np.log([[item.prompt_tokens] for item in features])
        cost_sd, latency_sd = self._scales["cost_sd"], self._scales["latency_sd"]
        tails = np.array([[-1.2816], [1.2816]])
        return Predictions(
            quality=quality,
            quality_sd=np.broadcast_to(self._scales["sd"], quality.shape),
            cost_usd=np.exp(self._line("cost", lengths) + cost_sd**2 / 2.0),
            latency_s=np.exp(self._line("latency", lengths)),
            score=logits,
            latency_log_sd=latency_sd,
            cost_tails=tails * cost_sd - cost_sd**2 / 2.0,
            latency_tails=tails * latency_sd,
            advice={"cascade": shares[:, 1], "verify": shares[:, 2], "abstain": shares[:, 3]},
        )

    def state(self) -> dict[str, np.ndarray]:
        """Return all learned arrays, flat; large ones in 32 bits."""
        groups: dict[str, Arrays] = {
            "state": self._state,
            "heads": self._heads,
            "calibrator": self._calibrator.arrays,
            "scales": self._scales,
            "labels": {"digest": self._digest},
        }
        return narrow(join_arrays(groups))

    def restore(self, workers: Sequence[WorkerId], arrays: Arrays) -> None:
        """Restore learned arrays.

        Raises:
            ValueError: the heads were trained for another set of workers, or in another order.
        """
        groups = split_arrays(arrays)
        self._digest = groups["labels"]["digest"]
        if not np.array_equal(self._digest, _digest(workers)):
            raise ValueError("the heads were trained for other workers than those of the card")
        self._state, self._heads, self._scales = groups["state"], groups["heads"], groups["scales"]
        self._calibrator = Calibrator(groups["calibrator"])

    def _line(self, name: str, lengths: Matrix) -> Matrix:
        return np.asarray(self._scales[f"{name}_base"] + self._scales[f"{name}_slope"] * lengths)


def make_targets(data: TrainingSet) -> Targets:
    """Make soft targets from measured qualities."""
    known = ~np.isnan(data.quality)
    met = np.where(known, data.quality, -np.inf)
    is_told = known.any(axis=1)
    worker = np.zeros_like(data.quality)
    worker[is_told] = softmax(met[is_told] / TEMPERATURE)
    best = data.best_single()
    top = np.where(is_told, np.max(np.where(known, data.quality, 0.0), axis=1), 0.0)
    own = np.where(known[:, best], np.nan_to_num(data.quality[:, best]), top)
    level = np.where(known, data.quality, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    shares = np.stack([level, _prefer_cascade(data, own), np.maximum(top - own, 0.0), 1.0 - top], axis=1)
    likeliest = worker.argmax(axis=1)
    counts = np.bincount(likeliest[is_told], minlength=worker.shape[1])
    balance = np.minimum(counts.max() / np.maximum(counts, 1), MOST_CLASS_WEIGHT)
    return Targets(worker=worker, known=known, shares=shares, weights=np.where(is_told, balance[likeliest], 0.0))


def train_heads(z: Matrix, targets: Targets, *, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Fit all heads by Adam on shuffled batches, and return the weights of the best validation loss.

    Source:
        Kingma & Ba (2015), Adam; Prechelt (1998), Early stopping - but when?
    """
    order = rng.permutation(len(z))
    held, rows = np.split(order, [max(1, int(VALIDATION_SHARE * len(z)))])
    rows = rows if len(rows) else held
    d, m = z.shape[1], targets.worker.shape[1]
    weights = {"worker": np.zeros((d + 1, m)), "shares": np.zeros((d + 1, targets.shares.shape[1]))}
    design = np.concatenate([z, np.ones((len(z), 1))], axis=1)
    moments = {name: (np.zeros_like(value), np.zeros_like(value)) for name, value in weights.items()}
    best, best_loss, waited, step = {k: v.copy() for k, v in weights.items()}, np.inf, 0, 0
    for _ in range(EPOCHS):
        for part in np.array_split(rng.permutation(rows), max(1, len(rows) // BATCH)):
            step += 1
            for name, gradient in _gradients(design[part], weights, targets, part).items():
                first, second = moments[name]
                first += 0.1 * (gradient - first)
                second += 0.001 * (gradient**2 - second)
                corrected = first / (1 - 0.9**step), second / (1 - 0.999**step)
                weights[name] -= RATE * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        loss = _loss(design[held], weights, targets, held)
        if loss < best_loss - 1e-5:
            best, best_loss, waited = {k: v.copy() for k, v in weights.items()}, loss, 0
        else:
            waited += 1
        if waited > PATIENCE:
            break
    return best


def _gradients(
    design: Matrix, weights: Mapping[str, np.ndarray], targets: Targets, rows: "np.ndarray"
) -> dict[str, Matrix]:
    scale = targets.weights[rows, None] / max(float(targets.weights[rows].sum()), 1e-9)
    left = (_shares_of(design, weights["worker"], targets.known[rows]) - targets.worker[rows]) * scale
    off = (sigmoid(design @ weights["shares"]) - targets.shares[rows]) / len(rows)
    return {
        "worker": design.T @ left + DECAY * weights["worker"],
        "shares": design.T @ off + DECAY * weights["shares"],
    }


def _loss(design: Matrix, weights: Mapping[str, np.ndarray], targets: Targets, rows: "np.ndarray") -> float:
    """Add the weighted cross entropy of the worker head and the mean cross entropy of the others."""
    p = np.maximum(_shares_of(design, weights["worker"], targets.known[rows]), 1e-9)
    scale = targets.weights[rows] / max(float(targets.weights[rows].sum()), 1e-9)
    worker = -float((scale[:, None] * targets.worker[rows] * np.log(p)).sum())
    s, met = np.clip(sigmoid(design @ weights["shares"]), 1e-6, 1 - 1e-6), targets.shares[rows]
    return worker - float((met * np.log(s) + (1 - met) * np.log1p(-s)).mean())


def _shares_of(design: Matrix, head: Matrix, known: "np.ndarray") -> Matrix:
    """Compute the softmax over the workers that have an outcome; zero for the others."""
    logits = np.where(known, design @ head, -np.inf)
    logits = np.where(known.any(axis=1, keepdims=True), logits, 0.0)
    return softmax(logits)


def _rate(z: Matrix, heads: Arrays, name: str) -> Matrix:
    return np.asarray(z @ heads[name][:-1] + heads[name][-1])


def _read_quality(logits: Matrix, shares: Matrix) -> Matrix:
    return np.asarray(shares[:, :1] + TEMPERATURE * (logits - logits.mean(axis=1, keepdims=True)))


def _cross_predict(z: Matrix, data: TrainingSet, folds: Folds, *, rng: np.random.Generator) -> Matrix:
    def predict(train: np.ndarray, test: np.ndarray) -> Matrix:
        heads = train_heads(z[train], make_targets(data.take(train)), rng=rng)
        return _read_quality(_rate(z[test], heads, "worker"), sigmoid(_rate(z[test], heads, "shares")))

    return predict_folds(data.quality, folds, predict)


def _prefer_cascade(data: TrainingSet, own: Matrix) -> Matrix:
    """Rate a cascade from the cheapest to the best worker against the best worker alone, in [0, 1]."""
    costs, best = column_means(data.cost_usd), data.best_single()
    if np.isnan(costs).any() or len(costs) < 2:
        return np.zeros(len(data))
    cheap = int(np.argmin(costs))
    price = costs / max(float(costs[best]), 1e-12)
    first = np.nan_to_num(data.quality[:, cheap])
    cascade = first + (1 - first) * own - CASCADE_PRICE * (price[cheap] + (1 - first) * price[best])
    return sigmoid((cascade - (own - CASCADE_PRICE * price[best])) / TEMPERATURE)


def _fit_scales(data: TrainingSet) -> dict[str, np.ndarray]:
    """Fit log cost and log latency as lines in the log of prompt tokens, with one slope for all workers."""
    lengths = np.log([[item.prompt_tokens] for item in data.features])
    scales: dict[str, np.ndarray] = {}
    for name, target in (("cost", data.cost_usd), ("latency", data.latency_s)):
        logs = np.where(np.isnan(target), np.nan, np.log(np.maximum(target, 1e-12)))
        spans = np.where(np.isnan(logs), np.nan, lengths)
        centred, means = spans - column_means(spans), column_means(logs)
        slope = float(np.nansum(centred * (logs - means)) / max(float(np.nansum(centred**2)), 1e-9))
        left = logs - means - slope * centred
        scales[f"{name}_base"] = means - slope * column_means(spans)
        scales[f"{name}_slope"] = np.array([slope])
        scales[f"{name}_sd"] = np.minimum(np.sqrt(np.nan_to_num(column_means(left**2), nan=UNKNOWN_LOG_SD**2)), 2.0)
    return scales


def _spread_of(data: TrainingSet, predicted: Matrix) -> Matrix:
    """Estimate the standard deviation of each worker's mean error, shape (m,)."""
    left = data.quality - predicted
    counts = np.maximum((~np.isnan(left)).sum(axis=0), 1)
    noise = np.sqrt(np.nan_to_num(column_means(left**2), nan=0.25))
    return np.asarray(np.clip(noise * np.sqrt(len(data.workers) / counts + 1.0 / 64.0), LEAST_SD, 0.5))


def _digest(workers: Sequence[WorkerId]) -> "np.ndarray":
    packed = "\x1f".join(workers).encode()
    return np.frombuffer(hashlib.sha256(packed).digest(), dtype=np.uint8).copy()
