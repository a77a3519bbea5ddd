"""Heads: light linear heads over the frozen state of a backbone, for worker, workflow, verifier and abstention.

The worker head is trained towards softmax(r / tau) of measured qualities r, workers without an outcome masked before
the softmax; a level head tells how hard the task is for all. Quality is read back from both:

    q(x, w) = calibrate(level(x) + tau (logit_w - mean logit))

A worker that is added later gets a row made of those of its kin; no row of another worker is touched.

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
from ripieno.route.predictors.guard import choose_margin
from ripieno.route.predictors.regressors import shrunk_means, sigmoid, softmax
from ripieno.route.predictors.scale import UNKNOWN_LOG_SD
from ripieno.route.predictors.stack import Folds
from ripieno.route.predictors.trained import Arrays, Predicted, TrainedPredictor, split_arrays

TEMPERATURE = 0.25
"""Softness of the targets: a quarter of quality apart is e times as likely."""
EPOCHS, PATIENCE, BATCH = 200, 12, 64
RATE, DECAY = 0.01, 1e-3
VALIDATION_SHARE = 0.15
MOST_CLASS_WEIGHT = 5.0
LEAST_SD = 0.02
WORKFLOWS = ("solo", "cascade")
CASCADE_PRICE = 0.2
"""Quality that the whole price of the best worker is worth when the workflow head's targets are made."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """What the heads are trained towards."""

    worker: Matrix
    """Rows sum to 1, zero where the worker has no outcome, shape (n, m)."""
    known: "np.ndarray"
    """Where a worker has an outcome, shape (n, m)."""
    shares: Matrix
    """Level, workflow `cascade`, verify, abstain; each in [0, 1], shape (n, 4)."""
    weights: Matrix
    """Weight of each task: classes of best workers count alike, shape (n,)."""


class HeadsPredictor(TrainedPredictor):
    """Heads on the encoder's vectors: the state of a language model's last token, or a sentence vector."""

    kind = "heads"

    def fit(self, data: TrainingSet, *, rng: np.random.Generator) -> None:
        """Train the heads with a validation split and early stop; calibrate on out-of-fold predictions."""
        from ripieno.route.predictors.pair import draw_folds, measure_fit

        self._set_workers(data.workers)
        embeddings = np.stack([item.embedding for item in data.features]).astype(np.float64)
        self._state = {"centre": embeddings.mean(axis=0), "scale": np.array([embeddings.std() + 1e-9])}
        z = self.vectors(data.features)
        folds = draw_folds(data.groups, rng=rng)
        raw = self._cross_predict(z, data, folds, rng=rng)
        self._heads = train_heads(z, make_targets(data), rng=rng)
        self._calibrator = Calibrator.fit(raw, data.quality)
        self.out_of_fold = self._calibrator.apply(raw)
        self.metrics = measure_fit(raw, self.out_of_fold, data.quality)
        self._scales = _fit_scales(data)
        self._scales["sd"] = _spread_of(data, self.out_of_fold)
        margin = choose_margin([self.out_of_fold], data.quality, [folds])
        self._learn_base(z, data, margin=margin, means=shrunk_means(data.quality))
        self.restore(self.workers, self.state(), version=self.checkpoint)  # as narrow as it is saved

    def vectors(self, features: Sequence[Features]) -> Matrix:
        """Centred and scaled states of the backbone, shape (len(features), d)."""
        embeddings = np.stack([item.embedding for item in features])
        return np.asarray((embeddings - self._state["centre"]) / self._state["scale"] / np.sqrt(embeddings.shape[1]))

    def predict(self, z: Matrix, features: Sequence[Features]) -> Predicted:
        """Quality from logits and level; cost and latency from the length of the prompt."""
        logits = _rate(z, self._heads, "worker")
        quality = self._calibrator.apply(_read_quality(z, self._heads))
        lengths = np.log([[item.prompt_tokens] for item in features])
        return Predicted(
            quality=quality,
            quality_sd=np.broadcast_to(self._scales["sd"], quality.shape),
            cost_usd=np.exp(self._line("cost", lengths) + self._scales["cost_sd"] ** 2 / 2.0),
            latency_s=np.exp(self._line("latency", lengths)),
            score=logits,
        )

    def advise(self, features: Features) -> Mapping[str, float]:
        """Shares of the further heads: cascade rather than solo, verify, abstain."""
        shares = sigmoid(_rate(self.vector(features), self._heads, "shares"))[0]
        return {"cascade": float(shares[1]), "verify": float(shares[2]), "abstain": float(shares[3])}

    def latency_log_sd(self, column: int) -> float:
        """Spread of the logarithm of a known worker's latency."""
        return float(self._scales["latency_sd"][column])

    def cover_cost(self, data: TrainingSet) -> float:
        """Share of measured costs in their 80 % intervals; NaN where nothing is known of them."""
        return self._cover("cost", data, data.cost_usd)

    def cover_latency(self, data: TrainingSet) -> float:
        """Share of measured latencies in their 80 % intervals; NaN where nothing is known of them."""
        return self._cover("latency", data, data.latency_s)

    def state(self) -> dict[str, np.ndarray]:
        """All learned arrays, flat; large ones in 32 bits."""
        groups: dict[str, Arrays] = {
            "state": self._state,
            "heads": self._heads,
            "calibrator": self._calibrator.arrays,
            "scales": self._scales,
            "labels": {"digest": _digest(self.workers)},
        }
        own = {f"{group}/{name}": value for group, arrays in groups.items() for name, value in arrays.items()}
        return {name: _narrow(value) for name, value in (self._base_state() | own).items()}

    def restore(self, workers: Sequence[WorkerId], arrays: Mapping[str, np.ndarray], *, version: str) -> None:
        """Take learned arrays back.

        Raises:
            ValueError: the heads were trained for another set of workers, or in another order.
        """
        groups = split_arrays(arrays)
        if not np.array_equal(groups["labels"]["digest"], _digest(workers)):
            raise ValueError("the heads belong to another label set than the card's workers")
        self._set_workers(workers)
        self.checkpoint = version
        self._restore_base(groups)
        self._state, self._heads, self._scales = groups["state"], groups["heads"], groups["scales"]
        self._calibrator = Calibrator(groups["calibrator"])

    def _cross_predict(self, z: Matrix, data: TrainingSet, folds: Folds, *, rng: np.random.Generator) -> Matrix:
        held_out = np.tile(shrunk_means(data.quality), (len(z), 1))
        for train, test in folds:
            heads = train_heads(z[train], make_targets(data.take(train)), rng=rng)
            held_out[test] = _read_quality(z[test], heads)
        return held_out

    def _line(self, name: str, lengths: Matrix) -> Matrix:
        return np.asarray(self._scales[f"{name}_base"] + self._scales[f"{name}_slope"] * lengths)

    def _cover(self, name: str, data: TrainingSet, target: Matrix) -> float:
        target = self._widen(data, target)
        known = ~np.isnan(target)
        lengths = np.log([[item.prompt_tokens] for item in data.features])
        half = 1.2816 * self._scales[f"{name}_sd"]
        inside = np.abs(np.log(np.maximum(target, 1e-12)) - self._line(name, lengths)) <= half
        return float(inside[known].mean()) if known.any() else float("nan")


def make_targets(data: TrainingSet) -> Targets:
    """Soft targets from measured qualities."""
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
    """Fit all heads by Adam on shuffled batches; the weights of the best validation loss are kept.

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
    """Weighted cross entropy of the worker head and mean cross entropy of the others."""
    p = np.maximum(_shares_of(design, weights["worker"], targets.known[rows]), 1e-9)
    scale = targets.weights[rows] / max(float(targets.weights[rows].sum()), 1e-9)
    worker = -float((scale[:, None] * targets.worker[rows] * np.log(p)).sum())
    s, met = np.clip(sigmoid(design @ weights["shares"]), 1e-6, 1 - 1e-6), targets.shares[rows]
    return worker - float((met * np.log(s) + (1 - met) * np.log1p(-s)).mean())


def _shares_of(design: Matrix, head: Matrix, known: "np.ndarray") -> Matrix:
    """Softmax over the workers that have an outcome; nothing for the others."""
    logits = np.where(known, design @ head, -np.inf)
    logits = np.where(known.any(axis=1, keepdims=True), logits, 0.0)
    return softmax(logits)


def _rate(z: Matrix, heads: Arrays, name: str) -> Matrix:
    return np.asarray(z @ heads[name][:-1] + heads[name][-1])


def _read_quality(z: Matrix, heads: Arrays) -> Matrix:
    logits = _rate(z, heads, "worker")
    level = sigmoid(_rate(z, heads, "shares"))[:, :1]
    return np.asarray(level + TEMPERATURE * (logits - logits.mean(axis=1, keepdims=True)))


def _prefer_cascade(data: TrainingSet, own: Matrix) -> Matrix:
    """How much rather the cheapest worker first and the best one after it, checked, than the best one alone."""
    costs, best = column_means(data.cost_usd), data.best_single()
    if np.isnan(costs).any() or len(costs) < 2:
        return np.zeros(len(data))
    cheap = int(np.argmin(costs))
    price = costs / max(float(costs[best]), 1e-12)
    first = np.nan_to_num(data.quality[:, cheap])
    cascade = first + (1 - first) * own - CASCADE_PRICE * (price[cheap] + (1 - first) * price[best])
    return sigmoid((cascade - (own - CASCADE_PRICE * price[best])) / TEMPERATURE)


def _fit_scales(data: TrainingSet) -> dict[str, np.ndarray]:
    """Base and slope of log cost and log latency in the log of prompt tokens, with their spread; one slope for all."""
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
    """Standard deviation of each worker's mean error, as few outcomes leave it; shape (m,)."""
    left = data.quality - predicted
    counts = np.maximum((~np.isnan(left)).sum(axis=0), 1)
    noise = np.sqrt(np.nan_to_num(column_means(left**2), nan=0.25))
    return np.asarray(np.clip(noise * np.sqrt(len(data.workers) / counts + 1.0 / 64.0), LEAST_SD, 0.5))


def _digest(workers: Sequence[WorkerId]) -> "np.ndarray":
    packed = "\x1f".join(workers).encode()
    return np.frombuffer(hashlib.sha256(packed).digest(), dtype=np.uint8).copy()


def _narrow(value: "np.ndarray") -> "np.ndarray":
    return value.astype(np.float32) if value.dtype == np.float64 and value.size > 256 else value
