"""OnlineState: what later outcomes taught about workers since the checkpoint was trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log

from ripieno.domain import Features, Worker, WorkerId
from ripieno.route.predictors.belief import Belief
from ripieno.route.predictors.checkpoint import Checkpoint
from ripieno.route.predictors.drift import DriftWatch

FORGETTING = 0.0005
"""Share of the prior uncertainty that each outcome adds again, so that no belief becomes final."""
EPOCH = 5_000
"""The drift detectors restart after this many outcomes. Snapshots are saved only at these points."""
SCALE_PRIOR_COUNT, LEAST_RATE = 2.0, 0.05
FIRST_RATE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """One outcome of a worker on a task."""

    features: Features
    worker: Worker
    quality: float
    """In [0, 1]."""
    cost_usd: float | None = None
    latency_s: float | None = None
    first_token_s: float | None = None
    """Time to the first token, if the answer was streamed."""

    @property
    def first_share(self) -> float | None:
        """Return the share of the latency before the first token; None if it is unknown."""
        return self.first_token_s / self.latency_s if self.first_token_s is not None and self.latency_s else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnlineState:
    """The knowledge from later outcomes. It is immutable: `fold` returns a new state."""

    watermark: int = 0
    """Ledger place of the last folded outcome."""
    folded: int = 0
    """Number of folded outcomes."""
    beliefs: Mapping[WorkerId, Belief] = field(default_factory=dict)
    outcomes: Mapping[WorkerId, int] = field(default_factory=dict)
    """Number of outcomes of each worker."""
    factors: Mapping[WorkerId, tuple[float, float]] = field(default_factory=dict)
    """Logarithms of each worker's cost and latency over the expected ones."""
    first_shares: Mapping[WorkerId, float] = field(default_factory=dict)
    """Share of a stream's latency before its first token."""
    drifts: tuple[str, ...] = ()
    """Detected changes of workers, in words."""
    watch: DriftWatch = field(default_factory=DriftWatch)
    """Drift detectors since the start of the epoch. Snapshots leave them out."""

    @property
    def is_between_epochs(self) -> bool:
        """Return whether an epoch has just ended, so that a snapshot holds the whole state."""
        return self.folded > 0 and self.to_epoch == EPOCH

    @property
    def to_epoch(self) -> int:
        """Return the number of outcomes until the epoch ends."""
        return EPOCH - self.folded % EPOCH

    def fold(
        self, observations: Sequence[Observation], checkpoint: Checkpoint, *, until: int
    ) -> tuple["OnlineState", tuple[str, ...]]:
        """Learn from outcomes, one after the other.

        Args:
            observations: the outcomes, oldest first.
            checkpoint: the source of the expectations.
            until: ledger place of the last outcome that was read, even if it is not among the observations.

        Returns:
            The new state, and the detected changes of workers, in words.

        Raises:
            PredictorError: the checkpoint cannot predict.
        """
        beliefs, counts = dict(self.beliefs), dict(self.outcomes)
        factors, first_shares, notices = dict(self.factors), dict(self.first_shares), list[str]()
        folded, watch = self.folded, self.watch.copy()
        for seen in observations:
            worker = seen.worker.id
            z = checkpoint.vectors([seen.features])
            weights, found = checkpoint.groups.weigh(z)[0], checkpoint.predict([seen.features], z)
            expected = float(checkpoint.rate(seen.worker, found.quality)[0])
            guesses = checkpoint.expect_scales(seen.worker, seen.features, found)
            factors[worker] = _update_factors(factors.get(worker, (0.0, 0.0)), counts.get(worker, 0), seen, guesses)
            if seen.first_share is not None:
                before = first_shares.get(worker, seen.first_share)
                first_shares[worker] = before + FIRST_RATE * (seen.first_share - before)
            prior = checkpoint.prior_of(worker)
            belief = beliefs.get(worker, prior)
            notice = watch.see(worker, int(weights.argmax()), expected=expected, outcome=seen.quality)
            if notice is not None:
                belief = belief.widen(checkpoint.newcomer.covariance)
                notices.append(notice)
            beliefs[worker] = belief.widen(FORGETTING * prior.covariance).update(weights, expected, seen.quality)
            counts[worker] = counts.get(worker, 0) + 1
            folded += 1
            if folded % EPOCH == 0:
                watch = DriftWatch(watch.changed)
        state = OnlineState(
            watermark=until,
            folded=folded,
            beliefs=beliefs,
            outcomes=counts,
            factors=factors,
            first_shares=first_shares,
            drifts=(*self.drifts, *notices),
            watch=watch,
        )
        return state, tuple(notices)


def _update_factors(
    factors: tuple[float, float], count: int, seen: Observation, guesses: tuple[float | None, float]
) -> tuple[float, float]:
    """Update the moving averages of the log ratios of cost and latency, which start as plain means."""
    rate = max(1.0 / (count + 1.0 + SCALE_PRIOR_COUNT), LEAST_RATE)
    cost, latency = (
        factor + rate * (log(met / guess) - factor)
        if met is not None and met > 0.0 and guess is not None and guess > 0.0
        else factor
        for factor, met, guess in zip(factors, (seen.cost_usd, seen.latency_s), guesses, strict=True)
    )
    return cost, latency
