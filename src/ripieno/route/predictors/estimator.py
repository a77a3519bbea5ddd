"""Estimator: estimates of known workers and newcomers, from a checkpoint and later outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, isnan

import numpy as np

from ripieno.domain import Estimate, Features, Matrix, Standing, Worker, WorkerId
from ripieno.route.predictors.belief import Belief
from ripieno.route.predictors.checkpoint import Checkpoint, mean_known
from ripieno.route.predictors.learner import Forecast, Predictions
from ripieno.route.predictors.online import Observation, OnlineState
from ripieno.route.predictors.prior import UNKNOWN_LATENCY_S, UNMEASURED_SD, list_price
from ripieno.route.predictors.scale import UNKNOWN_LOG_SD

FEW_OUTCOMES, ENOUGH_OUTCOMES = 10, 30
SETTLED_SD = 0.12
LIKELY = 0.5
"""Lowest probability of an inferred kind of task."""

_Row = tuple[float, float, float, float, float | None, float | None, float]
"""Quality, its standard deviation, cost, latency, output tokens, score and latency spread of one worker."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sight:
    """The checkpoint's view of one task."""

    features: Features
    expected: Predictions
    rows: list[_Row]
    weights: Matrix | None
    """Group weights of the task, shape (1, k); None if they are not needed."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimator:
    """Estimates tasks on workers. It is immutable: `fold` returns a new estimator."""

    checkpoint: Checkpoint
    state: OnlineState = field(default_factory=OnlineState)

    @property
    def version(self) -> str:
        """Return the checkpoint's name with the ledger place of the last folded outcome."""
        name = self.checkpoint.version
        return f"{name}+{self.state.watermark}" if self.state.outcomes else name

    def forecast(self, features: Features, workers: Sequence[Worker]) -> Forecast:
        """Estimate one task on each of `workers`, in order; the task's vector is computed once.

        Raises:
            PredictorError: the checkpoint's learner raised, or its predictions are invalid.
        """
        checkpoint = self.checkpoint
        z = checkpoint.vectors([features])
        expected = checkpoint.predict([features], z)
        is_plain = not self.state.beliefs and all(worker.id in checkpoint.columns for worker in workers)
        asks_kind = features.kind is None and checkpoint.groups.names
        weights = None if is_plain and not asks_kind else checkpoint.groups.weigh(z)
        sight = _Sight(features=features, expected=expected, rows=_list_rows(expected), weights=weights)
        return Forecast(
            estimates=tuple(
                self._estimate_newcomer(worker, sight)
                if (column := checkpoint.columns.get(worker.id)) is None
                else self._estimate_known(worker, column, sight)
                for worker in workers
            ),
            kind=self._infer_kind(weights) if asks_kind and weights is not None else features.kind,
            advice={name: float(shares[0]) for name, shares in expected.advice.items()},
        )

    def fold(self, observations: Sequence[Observation], *, until: int) -> tuple["Estimator", tuple[str, ...]]:
        """Learn from outcomes; see `OnlineState.fold`."""
        state, notices = self.state.fold(observations, self.checkpoint, until=until)
        return Estimator(self.checkpoint, state), notices

    def expect(self, features: Sequence[Features], worker: Worker) -> tuple[Matrix, Matrix]:
        """Return the quality that the checkpoint expects of a worker, shape (n,), and the groups, shape (n, k)."""
        z = self.checkpoint.vectors(features)
        quality = self.checkpoint.rate(worker, self.checkpoint.predict(features, z).quality)
        return quality, self.checkpoint.groups.weigh(z)

    def belief_of(self, worker: WorkerId) -> Belief:
        """Return the current belief of a worker."""
        return self.state.beliefs.get(worker) or self.checkpoint.prior_of(worker)

    def standing(self, worker: WorkerId, *, sd: float) -> Standing:
        """Return the current standing of a worker; `sd` is the uncertainty of its quality on the task."""
        if worker in self.checkpoint.columns:
            return Standing.FREE
        outcomes = self.state.outcomes.get(worker, 0)
        if outcomes == 0:
            return Standing.MASKED
        if outcomes < FEW_OUTCOMES:
            return Standing.SHADOW
        return Standing.FREE if outcomes >= ENOUGH_OUTCOMES and sd <= SETTLED_SD else Standing.TRIAL

    def _infer_kind(self, weights: Matrix) -> str | None:
        """Return the likeliest kind of task among those of the training tasks; None if none is likely."""
        place = int(weights[0].argmax())
        return self.checkpoint.groups.names[place] if weights[0, place] >= LIKELY else None

    def _estimate_known(self, worker: Worker, column: int, sight: _Sight) -> Estimate:
        quality, sd, cost, latency, length, score, log_sd = sight.rows[column]
        factors = self.state.factors.get(worker.id, (0.0, 0.0))
        mean = float(self.checkpoint.means[column])
        belief = self.state.beliefs.get(worker.id)
        if belief is not None:
            assert sight.weights is not None
            met = np.array([quality])
            shifted, now = belief.apply(sight.weights, met)
            _, first = self.checkpoint.prior_of(worker.id).apply(sight.weights, met)
            quality, sd = float(shifted[0]), min(sd * float(now[0] / max(first[0], 1e-9)), UNMEASURED_SD)
            mean = float(belief.apply(self.checkpoint.shares, np.array([mean]))[0][0])
        latency = (UNKNOWN_LATENCY_S if isnan(latency) else latency) * exp(factors[1])
        price = list_price(worker, sight.features, length) if isnan(cost) else cost
        return Estimate(
            worker=worker.id,
            quality=quality,
            quality_sd=sd,
            cost_usd=None if price is None else price * exp(factors[0]),
            latency_s=latency,
            first_token_s=self._expect_first(worker.id, latency),
            latency_log_sd=log_sd,
            mean_quality=mean,
            output_tokens=length,
            score=score,
        )

    def _estimate_newcomer(self, worker: Worker, sight: _Sight) -> Estimate:
        checkpoint, expected, weights = self.checkpoint, sight.expected, sight.weights
        assert weights is not None
        similar = checkpoint.weigh_similar(worker)
        belief = self.belief_of(worker.id)
        quality, sd = belief.apply(weights, expected.quality @ similar)
        mean, _ = belief.apply(checkpoint.shares, np.array([checkpoint.means @ similar]))
        cost, latency = checkpoint.expect_scales(worker, sight.features, expected)
        factors = self.state.factors.get(worker.id, (0.0, 0.0))
        latency *= exp(factors[1])
        return Estimate(
            worker=worker.id,
            quality=float(quality[0]),
            quality_sd=float(min(max(sd[0], 0.02), UNMEASURED_SD)),
            cost_usd=None if cost is None else cost * exp(factors[0]),
            latency_s=latency,
            first_token_s=self._expect_first(worker.id, latency),
            output_tokens=None if expected.output_tokens is None else mean_known(expected.output_tokens[0], similar),
            is_measured=worker.id in self.state.outcomes,
            mean_quality=float(mean[0]),
            score=None if expected.score is None else float(expected.score[0] @ similar),
            standing=self.standing(worker.id, sd=float(sd[0])),
        )

    def _expect_first(self, worker: WorkerId, latency_s: float) -> float | None:
        share = self.state.first_shares.get(worker)
        return None if share is None else share * latency_s


def _list_rows(found: Predictions) -> list[_Row]:
    """Return the expectations of each worker on the first task as plain numbers."""
    count = found.quality.shape[1]
    parts = (found.quality, found.quality_sd, found.cost_usd, found.latency_s)
    nothing = [None] * count
    further = [nothing if part is None else part[0].tolist() for part in (found.output_tokens, found.score)]
    log_sd = [UNKNOWN_LOG_SD] * count if found.latency_log_sd is None else found.latency_log_sd.tolist()
    return list(zip(*(part[0].tolist() for part in parts), *further, log_sd, strict=True))
