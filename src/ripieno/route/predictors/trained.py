"""TrainedPredictor: what all learned predictors do alike: estimates, newcomers, learning from single outcomes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isnan, log
from typing import TypeAlias

import numpy as np

from ripieno.domain import Estimate, Features, Matrix, Standing, Worker, WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.route.predictors.belief import Belief, learn_cells, learn_prior
from ripieno.route.predictors.cards import weigh_kin
from ripieno.route.predictors.drift import DriftWatch
from ripieno.route.predictors.groups import Groups
from ripieno.route.predictors.scale import UNKNOWN_LOG_SD

PRIOR_OUTPUT_TOKENS = 256.0
UNKNOWN_LATENCY_S = 1.0
"""Expected wait where no latency was measured."""
UNMEASURED_SD = 0.3
"""Quality of a worker without outcomes is uncertain by this much: the spread of workers in the outcome sets."""
KNOWN_SHARE = 0.5
"""How far the learned estimates of a known worker may be off: this share of what its outcomes in a group leave open."""
FORGETTING = 0.0005
"""Share of the first uncertainty that each outcome gives back, so that no belief is ever final."""
EPOCH = 5_000
"""Outcomes after which workers are watched anew, as if nothing of them was seen: what was learnt can be kept then."""
FEW_OUTCOMES, ENOUGH_OUTCOMES = 10, 30
SETTLED_SD = 0.12
LIKELY = 0.5
SCALE_PRIOR_COUNT, LEAST_RATE = 2.0, 0.05
FIRST_RATE = 0.1
BASE = ("margin", "means", "cards", "cells", "rivals", "shares")

Arrays = Mapping[str, np.ndarray]


Row: TypeAlias = tuple[float, float, float, float, float | None, float | None]
"""Quality, its standard deviation, cost, latency, output tokens and score of one worker."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """What is expected of n tasks on m known workers, each of shape (n, m); NaN where nothing is known."""

    quality: Matrix
    quality_sd: Matrix
    cost_usd: Matrix
    latency_s: Matrix
    output_tokens: Matrix | None = None
    """Mean length of the answers, where lengths were measured."""
    score: Matrix | None = None
    """Raw scores of the workers, where the predictor chooses by some."""

    def rows(self) -> list[Row]:
        """What is expected of each worker on the first task, as plain numbers."""
        parts = (self.quality, self.quality_sd, self.cost_usd, self.latency_s)
        nothing = [None] * self.quality.shape[1]
        further = [nothing if part is None else part[0].tolist() for part in (self.output_tokens, self.score)]
        return list(zip(*(part[0].tolist() for part in parts), *further, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learnt:
    """What single outcomes have taught a predictor, between two epochs."""

    watermark: int
    folded: int
    """Outcomes that were learned from."""
    beliefs: Mapping[WorkerId, Belief]
    outcomes: Mapping[WorkerId, int]
    factors: Mapping[WorkerId, tuple[float, float]]
    first_shares: Mapping[WorkerId, float]
    drifts: tuple[str, ...]
    changed: tuple[WorkerId, ...]
    """Workers that are known not to be what the checkpoint expects."""


class TrainedPredictor(ABC):
    """One class for training and serving.

    A predictor holds what was learned at once (its arrays, saved as a checkpoint) and what single outcomes taught it
    since (its beliefs, folded in anew from the ledger whenever it is loaded).
    """

    kind: str

    def __init__(self) -> None:
        self.checkpoint = f"untrained-{self.kind}"
        self.workers: tuple[WorkerId, ...] = ()
        self.metrics: dict[str, float] = {}
        self.out_of_fold: Matrix | None = None
        """Calibrated predictions of the training tasks, each by a fit without it, shape (n, m); not saved."""
        self.watermark = 0
        """Place in the ledger up to which outcomes are folded in."""
        self.folded = 0
        """Outcomes that were learned from one by one."""
        self.drifts: list[str] = []
        """Changes of workers that were noticed, in words."""
        self._column: dict[WorkerId, int] = {}
        self._base: dict[str, np.ndarray] = {}
        self._beliefs: dict[WorkerId, Belief] = {}
        self._outcomes: dict[WorkerId, int] = {}
        self._factors: dict[WorkerId, tuple[float, float]] = {}
        """Logarithms of what a worker costs and takes against what was expected."""
        self._first_shares: dict[WorkerId, float] = {}
        """Share of a stream's time before its first token."""
        self._kin: dict[WorkerId, Matrix] = {}
        self._watch = DriftWatch()
        self._latest: tuple[Features, Matrix] | None = None

    @property
    def version(self) -> str:
        """Name of the checkpoint, and the place in the ledger up to which later outcomes are folded in."""
        return f"{self.checkpoint}+{self.watermark}" if self._outcomes else self.checkpoint

    @property
    def margin(self) -> float:
        """Quality by which a worker must be ahead before the best single worker is left for it."""
        return float(self._base["margin"][0])

    @property
    def means(self) -> Matrix:
        """Mean quality of each worker over all known tasks, shape (m,)."""
        return np.asarray(self._base["means"])

    @abstractmethod
    def fit(self, data: TrainingSet, *, rng: np.random.Generator) -> None:
        """Learn from measured outcomes."""

    @abstractmethod
    def vectors(self, features: Sequence[Features]) -> Matrix:
        """The dense vectors that the regressors see, shape (len(features), d)."""

    @abstractmethod
    def predict(self, z: Matrix, features: Sequence[Features]) -> Predicted:
        """What the checkpoint expects, beliefs not counted."""

    @abstractmethod
    def cover_cost(self, data: TrainingSet) -> float:
        """Share of measured costs in their 80 % intervals; NaN where nothing is known of them."""

    @abstractmethod
    def cover_latency(self, data: TrainingSet) -> float:
        """Share of measured latencies in their 80 % intervals; NaN where nothing is known of them."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """All learned arrays, flat, ready for safetensors."""

    @abstractmethod
    def restore(self, workers: Sequence[WorkerId], arrays: Arrays, *, version: str) -> None:
        """Take learned arrays back."""

    def latency_log_sd(self, column: int) -> float:
        """Spread of the logarithm of a known worker's latency."""
        return UNKNOWN_LOG_SD

    def advise(self, features: Features) -> Mapping[str, float]:
        """Further shares in [0, 1] that the predictor has a head for; none by default."""
        return {}

    def vector(self, features: Features) -> Matrix:
        """The dense vector of one task, shape (1, d); kept until another task comes."""
        if self._latest is None or self._latest[0] is not features:
            self._latest = features, self.vectors([features])
        return self._latest[1]

    def infer_kind(self, features: Features) -> str | None:
        """The likeliest kind of task among those it was trained on; None where it knows none, or none is likely."""
        names = self._groups.names
        if not names:
            return None
        shares = self._groups.weigh(self.vector(features))[0]
        place = int(shares.argmax())
        return names[place] if shares[place] >= LIKELY else None

    def estimate_many(self, features: Sequence[Features]) -> Predicted:
        """What the checkpoint expects of many tasks on all known workers."""
        return self.predict(self.vectors(features), features)

    def estimate(self, features: Features, workers: Sequence[Worker]) -> tuple[Estimate, ...]:
        """Estimate one task on each of `workers`, in order."""
        z = self.vector(features)
        expected = self.predict(z, [features])
        is_plain = not self._beliefs and all(worker.id in self._column for worker in workers)
        weights = None if is_plain else self._groups.weigh(z)
        rows = expected.rows()
        return tuple(
            self._estimate_newcomer(worker, features, expected, weights)
            if (column := self._column.get(worker.id)) is None
            else self._estimate_known(worker, features, rows[column], weights)
            for worker in workers
        )

    def learn(
        self,
        features: Features,
        worker: Worker,
        outcome: float,
        *,
        cost_usd: float | None = None,
        latency_s: float | None = None,
        first_token_s: float | None = None,
    ) -> str | None:
        """Fold one outcome in.

        Args:
            features: of the task.
            worker: who answered.
            outcome: what the answer was worth, in [0, 1].
            cost_usd: what it cost, where that is known.
            latency_s: how long it took, where that is known.
            first_token_s: when its first token came, where it was streamed.

        Returns:
            What was noticed, where the worker's quality has changed.
        """
        z = self.vector(features)
        weights = self._groups.weigh(z)
        expected = self.predict(z, [features])
        quality = float(self._rate(worker, expected.quality)[0])
        self._learn_scales(worker, features, expected, cost_usd=cost_usd, latency_s=latency_s)
        if first_token_s is not None and latency_s:
            seen = self._first_shares.get(worker.id, first_token_s / latency_s)
            self._first_shares[worker.id] = seen + FIRST_RATE * (first_token_s / latency_s - seen)
        prior = self.prior_of(worker.id)
        belief = self._beliefs.get(worker.id, prior)
        noticed = self._watch.see(worker.id, int(weights[0].argmax()), expected=quality, outcome=outcome)
        if noticed is not None:
            belief = belief.widen(self._newcomer.covariance)
            self.drifts.append(noticed)
        belief = belief.widen(FORGETTING * prior.covariance)
        self._beliefs[worker.id] = belief.update(weights[0], quality, outcome)
        self._outcomes[worker.id] = self._outcomes.get(worker.id, 0) + 1
        self.folded += 1
        if self.is_between_epochs:
            self._watch = DriftWatch(self._watch.changed)
        return noticed

    @property
    def is_between_epochs(self) -> bool:
        """Whether all that outcomes have taught is in `learnt`: an epoch has just ended."""
        return self.folded > 0 and self.folded % EPOCH == 0

    def learnt(self) -> Learnt:
        """What outcomes have taught; whole between two epochs only, as detectors of change are not in it."""
        return Learnt(
            watermark=self.watermark,
            folded=self.folded,
            beliefs=dict(self._beliefs),
            outcomes=dict(self._outcomes),
            factors=dict(self._factors),
            first_shares=dict(self._first_shares),
            drifts=tuple(self.drifts),
            changed=tuple(sorted(self._watch.changed)),
        )

    def take(self, learnt: Learnt) -> None:
        """Take back what outcomes have taught, in place of what was learnt since the checkpoint.

        Raises:
            ValueError: it is of another number of groups.
        """
        groups = len(self._newcomer.mean)
        if any(belief.covariance.shape != (groups, groups) for belief in learnt.beliefs.values()):
            raise ValueError(f"beliefs are not of {groups} groups")
        self.watermark, self.folded = learnt.watermark, learnt.folded
        self._beliefs, self._outcomes = dict(learnt.beliefs), dict(learnt.outcomes)
        self._factors, self._first_shares = dict(learnt.factors), dict(learnt.first_shares)
        self.drifts, self._watch = list(learnt.drifts), DriftWatch(learnt.changed)

    def prior_of(self, worker: WorkerId) -> Belief:
        """What is believed of a worker before any single outcome."""
        column = self._column.get(worker)
        if column is None:
            return self._newcomer
        return Belief.prior(np.diag(KNOWN_SHARE * self._base["cells"][column]))

    def expect(self, features: Sequence[Features], worker: Worker) -> tuple[Matrix, Matrix]:
        """Quality that the checkpoint expects of a worker, shape (n,), and the tasks' groups, shape (n, k)."""
        z = self.vectors(features)
        return self._rate(worker, self.predict(z, features).quality), self._groups.weigh(z)

    def belief_of(self, worker: WorkerId) -> Belief:
        """What is believed of a worker by now."""
        return self._beliefs.get(worker) or self.prior_of(worker)

    @property
    def rivals(self) -> Matrix:
        """Mean quality of the best known worker in each group, shape (k,)."""
        return np.asarray(self._base["rivals"])

    def stand(self, worker: WorkerId, *, sd: float) -> Standing:
        """How far a worker may be used by now; `sd` is the uncertainty of its quality on the task at hand."""
        if worker in self._column:
            return Standing.FREE
        outcomes = self._outcomes.get(worker, 0)
        if outcomes == 0:
            return Standing.MASKED
        if outcomes < FEW_OUTCOMES:
            return Standing.SHADOW
        return Standing.FREE if outcomes >= ENOUGH_OUTCOMES and sd <= SETTLED_SD else Standing.TRIAL

    def _widen(self, data: TrainingSet, target: Matrix) -> Matrix:
        """A matrix over the data's workers as one over all known ones, NaN where the data lack one."""
        wide = np.full((len(data), len(self.workers)), np.nan)
        wide[:, [self._column[worker] for worker in data.workers]] = target
        return wide

    def _set_workers(self, workers: Sequence[WorkerId]) -> None:
        self.workers = tuple(workers)
        self._column = {worker: index for index, worker in enumerate(self.workers)}
        self._usual: list[float] = []

    def _learn_base(self, z: Matrix, data: TrainingSet, *, margin: float, means: Matrix) -> None:
        """What newcomers and single outcomes are held against."""
        self._groups = Groups.fit(z, data.labels)
        weights = self._groups.weigh(z)
        self._newcomer = Belief.prior(learn_prior(weights, data.quality).covariance)
        cards = data.cards if data.cards is not None else np.full((len(data.workers), 1), np.nan)
        cells, rivals = learn_cells(weights, data.quality)
        self._base = {
            "margin": np.array([margin]),
            "means": means,
            "cards": cards,
            "cells": cells,
            "rivals": rivals,
            "shares": weights.mean(axis=0, keepdims=True),
        }
        self._usual = means.tolist()

    def _base_state(self) -> dict[str, np.ndarray]:
        newcomer = {"mean": self._newcomer.mean, "covariance": self._newcomer.covariance}
        parts: tuple[tuple[str, Arrays], ...] = (
            ("base", self._base), ("groups", self._groups.arrays), ("newcomer", newcomer),
        )  # fmt: skip
        return {f"{part}/{name}": value for part, arrays in parts for name, value in arrays.items()}

    def _restore_base(self, groups: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        self._base = {name: groups["base"][name] for name in BASE}
        self._usual = self.means.tolist()
        self._groups = Groups(groups["groups"])
        self._newcomer = Belief(**groups["newcomer"])

    def _rate(self, worker: Worker, quality: Matrix) -> Matrix:
        """Quality of one worker, shape (n,): its own column, or its kin's for a newcomer."""
        column = self._column.get(worker.id)
        return quality[:, column] if column is not None else quality @ self._weigh_kin(worker)

    def _expect_first(self, worker: WorkerId, latency_s: float) -> float | None:
        share = self._first_shares.get(worker)
        return None if share is None else share * latency_s

    def _learn_scales(
        self,
        worker: Worker,
        features: Features,
        expected: Predicted,
        *,
        cost_usd: float | None,
        latency_s: float | None,
    ) -> None:
        """Follow what a worker costs and takes by a moving average of log ratios, a plain mean at first."""
        rate = max(1.0 / (self._outcomes.get(worker.id, 0) + 1.0 + SCALE_PRIOR_COUNT), LEAST_RATE)
        factors = list(self._factors.get(worker.id, (0.0, 0.0)))
        guesses = self._expect_scales(worker, features, expected)
        for index, (guess, met) in enumerate(zip(guesses, (cost_usd, latency_s), strict=True)):
            if met is not None and met > 0.0 and guess is not None and guess > 0.0:
                factors[index] += rate * (log(met / guess) - factors[index])
        self._factors[worker.id] = factors[0], factors[1]

    def _expect_scales(self, worker: Worker, features: Features, expected: Predicted) -> tuple[float | None, float]:
        """Cost and latency that the checkpoint expects: the worker's own, or its kin's where it is new."""
        column = self._column.get(worker.id)
        kin = self._weigh_kin(worker) if column is None else None
        cost: float | None
        cost = float(expected.cost_usd[0, column]) if kin is None else _mean_known(expected.cost_usd[0], kin)
        latency = float(expected.latency_s[0, column]) if kin is None else _mean_known(expected.latency_s[0], kin)
        if isnan(cost) or (kin is not None and worker.price.usd_per_cpu_s == 0.0):
            lengths = expected.output_tokens
            known = None if lengths is None else lengths[0] @ kin if kin is not None else lengths[0, column]
            cost = _list_price(worker, features, None if known is None else float(known))
        return cost, UNKNOWN_LATENCY_S if isnan(latency) else latency

    def _weigh_kin(self, worker: Worker) -> Matrix:
        if worker.id not in self._kin:
            self._kin[worker.id] = weigh_kin(worker, self.workers, self._base["cards"])
        return self._kin[worker.id]

    def _estimate_known(
        self,
        worker: Worker,
        features: Features,
        expected: Row,
        weights: Matrix | None,
    ) -> Estimate:
        quality, sd, cost, latency, length, score = expected
        column = self._column[worker.id]
        factors = self._factors.get(worker.id, (0.0, 0.0))
        usual = self._usual[column]
        if weights is not None and worker.id in self._beliefs:
            prior, belief = self.prior_of(worker.id), self._beliefs[worker.id]
            shifted, now = belief.apply(weights, np.array([quality]))
            _, first = prior.apply(weights, np.array([quality]))
            quality, sd = float(shifted[0]), min(sd * float(now[0] / max(first[0], 1e-9)), UNMEASURED_SD)
            usual = float(belief.apply(self._base["shares"], np.array([usual]))[0][0])
        latency = (UNKNOWN_LATENCY_S if isnan(latency) else latency) * exp(factors[1])
        return Estimate(
            worker=worker.id,
            quality=quality,
            quality_sd=sd,
            cost_usd=_scale_cost(_list_price(worker, features, length) if isnan(cost) else cost, factors[0]),
            latency_s=latency,
            first_token_s=self._expect_first(worker.id, latency),
            latency_log_sd=self.latency_log_sd(column),
            mean_quality=usual,
            output_tokens=length,
            score=score,
        )

    def _estimate_newcomer(
        self, worker: Worker, features: Features, expected: Predicted, weights: Matrix | None
    ) -> Estimate:
        assert weights is not None
        kin = self._weigh_kin(worker)
        belief = self.belief_of(worker.id)
        quality, sd = belief.apply(weights, expected.quality @ kin)
        usual, _ = belief.apply(self._base["shares"], np.array([self.means @ kin]))
        cost, latency = self._expect_scales(worker, features, expected)
        length = None if expected.output_tokens is None else _mean_known(expected.output_tokens[0], kin)
        factors = self._factors.get(worker.id, (0.0, 0.0))
        latency *= exp(factors[1])
        return Estimate(
            worker=worker.id,
            quality=float(quality[0]),
            quality_sd=float(min(max(sd[0], 0.02), UNMEASURED_SD)),
            cost_usd=_scale_cost(cost, factors[0]),
            latency_s=latency,
            first_token_s=self._expect_first(worker.id, latency),
            output_tokens=length,
            is_measured=worker.id in self._outcomes,
            mean_quality=float(usual[0]),
            score=None if expected.score is None else float(expected.score[0] @ kin),
            standing=self.stand(worker.id, sd=float(sd[0])),
        )


def split_arrays(arrays: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """Flat names `group/name` as a table of tables."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, value in arrays.items():
        group, _, key = name.partition("/")
        groups.setdefault(group, {})[key] = value
    return groups


def _mean_known(values: Matrix, weights: Matrix) -> float:
    """Weighted mean of the known values; NaN without any."""
    known = ~np.isnan(values)
    return float(values[known] @ weights[known] / weights[known].sum()) if known.any() else float("nan")


def _scale_cost(cost: float | None, factor: float) -> float | None:
    return None if cost is None else cost * exp(factor)


def _list_price(worker: Worker, features: Features, output_tokens: float | None) -> float | None:
    length = PRIOR_OUTPUT_TOKENS if output_tokens is None else output_tokens
    return worker.price.charge(input_tokens=features.prompt_tokens, output_tokens=length, cpu_s=1.0)
