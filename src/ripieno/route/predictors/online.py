"""OnlineState: what single outcomes have taught about workers since their checkpoint was trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log

from ripieno.domain import Features, Worker, WorkerId
from ripieno.route.predictors.belief import Belief
from ripieno.route.predictors.checkpoint import Checkpoint
from ripieno.route.predictors.drift import DriftWatch

FORGETTING = 0.0005
"""Share of the first uncertainty that each outcome gives back, so that no belief is ever final."""
EPOCH = 5_000
"""The drift detectors restart after this many outcomes. Snapshots are saved only at these points."""
SCALE_PRIOR_COUNT, LEAST_RATE = 2.0, 0.05
FIRST_RATE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """What one worker did on one task."""

    features: Features
    worker: Worker
    quality: float
    """What the answer was worth, in [0, 1]."""
    cost_usd: float | None = None
    """None where it is unknown."""
    latency_s: float | None = None
    """None where it is unknown."""
    first_token_s: float | None = None
    """When the first token came, where the answer was streamed."""

    @property
    def first_share(self) -> float | None:
        """Share of the time before the first token; None where it is unknown."""
        return self.first_token_s / self.latency_s if self.first_token_s is not None and self.latency_s else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnlineState:
    """What single outcomes have taught. It never changes: `fold` returns another state."""

    watermark: int = 0
    """Place in the ledger up to which outcomes are folded in."""
    folded: int = 0
    """Outcomes that were learned from."""
    beliefs: Mapping[WorkerId, Belief] = field(default_factory=dict)
    outcomes: Mapping[WorkerId, int] = field(default_factory=dict)
    """Outcomes of each worker."""
    factors: Mapping[WorkerId, tuple[float, float]] = field(default_factory=dict)
    """Logarithms of each worker's cost and latency over the expected ones."""
    first_shares: Mapping[WorkerId, float] = field(default_factory=dict)
    """Share of a stream's time before its first token."""
    drifts: tuple[str, ...] = ()
    """Changes of workers that were noticed, in words."""
    watch: DriftWatch = field(default_factory=DriftWatch)
    """Detectors of changes since the epoch began; snapshots leave them out."""

    @property
    def is_between_epochs(self) -> bool:
        """Whether an epoch has just ended: then a snapshot holds all of this state."""
        return self.folded > 0 and self.to_epoch == EPOCH

    @property
    def to_epoch(self) -> int:
        """Outcomes until the epoch ends."""
        return EPOCH - self.folded % EPOCH

    def fold(
        self, observations: Sequence[Observation], checkpoint: Checkpoint, *, until: int
    ) -> tuple["OnlineState", tuple[str, ...]]:
        """Learn from outcomes, one after the other.

        Args:
            observations: the outcomes, oldest first.
            checkpoint: what they are compared with.
            until: place in the ledger of the last outcome that was read, whether it is among them or not.

        Returns:
            The state after them, and the changes of workers that were noticed, in words.

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
            factors[worker] = _follow_scales(factors.get(worker, (0.0, 0.0)), counts.get(worker, 0), seen, guesses)
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


def _follow_scales(
    factors: tuple[float, float], count: int, seen: Observation, guesses: tuple[float | None, float]
) -> tuple[float, float]:
    """Follow what a worker costs and takes by a moving average of log ratios, a plain mean at first."""
    rate = max(1.0 / (count + 1.0 + SCALE_PRIOR_COUNT), LEAST_RATE)
    cost, latency = (
        factor + rate * (log(met / guess) - factor)
        if met is not None and met > 0.0 and guess is not None and guess > 0.0
        else factor
        for factor, met, guess in zip(factors, (seen.cost_usd, seen.latency_s), guesses, strict=True)
    )
    return cost, latency
