"""The table of proof: policies compared on held-out tasks, with intervals and a verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ripieno.domain import Objective
from ripieno.domain.report import Interval, Report, money, number, seconds, text
from ripieno.evaluate.bootstrap import Draws
from ripieno.evaluate.curve import Curve, mix_curve, sweep_curve
from ripieno.route.utility import Scales, price_error, score_outcomes, weigh_quality

POOL_BOUND_GAP = 0.02
CEILING_SHARE = 0.8
CALIBRATION_BINS = 15
_PROOF = (
    text("name", "policy"), number("quality.mean", "quality", spec=".4f"),
    number("gain", "against best single", spec="+.4f"), money("cost_usd", "cost"),
    seconds("latency_s", "latency"), number("utility.mean", "utility", spec="+.4f"),
    number("utility_gain", "gain [95 %]", spec="+.4f"), number("gap_closed", "gap closed", spec=".0%"),
    text("note"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """All measurements of the held-out tasks: t tasks, m workers."""

    workers: tuple[str, ...]
    quality: np.ndarray
    """Mean measured quality, shape (t, m), no NaN."""
    cost_usd: np.ndarray
    """Mean measured cost, shape (t, m); all NaN if unknown."""
    latency_s: np.ndarray
    kinds: tuple[str, ...]
    groups: np.ndarray
    """Group number of each task, shape (t,), for the bootstrap."""
    halves: tuple[np.ndarray, np.ndarray] | None = None
    """Quality from two disjoint halves of the repeats; None unless every pair has two."""

    @property
    def has_costs(self) -> bool:
        """Return whether every pair has a cost."""
        return not bool(np.isnan(self.cost_usd).any())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entrant:
    """One policy of the table: its selection probabilities of each worker on each task."""

    name: str
    shares: np.ndarray
    """Shape (t, m). The rest of a row to 1 is the probability of no answer."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the table."""

    name: str
    quality: Interval
    gain: Interval
    """Paired difference in quality to the best single worker."""
    cost_usd: float | None
    latency_s: float | None
    utility: Interval
    utility_gain: Interval
    gap_closed: float | None
    """Share of the utility gap between best single and oracle, 1 for the oracle; None if there is no gap."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Share of held-out means that lie in their 80 % intervals; None if nothing could be measured."""

    quality: float | None = None
    """Of the means of each kind of task and worker."""
    cost: float | None = None
    latency: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReport:
    """The table of proof, and the other results of `evaluate`."""

    name: str
    tasks: int
    train_tasks: int
    workers: tuple[str, ...]
    best_single: str
    verdict: str
    calibration_error: float | None = None
    area: float | None = None
    area_of_mix: float | None = None
    quality_at_best_cost: float | None = None
    saved_at_equal_quality: float | None = None
    """Saved share of the best single worker's cost, at its quality, on the held-out curve."""
    margin: float = 0.0
    """Quality by which a worker must beat the incumbent."""
    coverage: Coverage = field(default_factory=Coverage)
    apgr: float | None = None
    """Average performance gap recovered, if there are two workers; by kind in `apgr_of`."""
    apgr_of: Mapping[str, float] = field(default_factory=dict)
    quality_of: Mapping[str, float] = field(default_factory=dict)
    """The router's mean quality on each kind of task."""
    policies: tuple[Line, ...]

    def line(self, name: str) -> Line:
        """Find the row of one policy."""
        return next(line for line in self.policies if line.name == name)

    def tabulate(self) -> Report:
        """Lay out the table of proof, with the verdict below it."""
        sizes = f"{self.tasks} held-out tasks, {self.train_tasks} to learn from, {len(self.workers)} workers"
        return Report(
            title=f"{self.name}: {sizes}",
            columns=_PROOF,
            rows=self.policies,
            notes=tuple(self._list_notes()),
            chosen="router",
        )

    def _list_notes(self) -> Iterator[str]:
        if self.area is not None and self.area_of_mix is not None:
            saved = self.saved_at_equal_quality
            yield (
                f"cost-quality area {self.area:.4f} (mix of single workers {self.area_of_mix:.4f}); "
                f"quality at the best single worker's cost {self.quality_at_best_cost:.4f}; "
                f"saved at its quality {'-' if saved is None else f'{saved:.0%}'}"
            )
        if self.calibration_error is not None:
            yield f"calibration error {self.calibration_error:.4f}"
        covered = (("group means of quality", self.coverage.quality), ("costs", self.coverage.cost),
                   ("latencies", self.coverage.latency))  # fmt: skip
        shares = [f"{share:.0%} of {name}" for name, share in covered if share is not None]
        if shares:
            yield f"80 % intervals cover {', '.join(shares)}"
        if self.apgr is not None:
            of = ", ".join(f"{kind} {value:.3f}" for kind, value in self.apgr_of.items())
            yield f"performance gap recovered between the two workers {self.apgr:.3f} ({of})"
        yield self.verdict


class Table:
    """Scores entrants on one field, against the best single worker and the oracle."""

    def __init__(self, held_out: Field, *, best_single: int, objective: Objective, scales: Scales) -> None:
        self.field = held_out
        self.best_single = best_single
        self.utility = utilities(held_out, objective, scales)
        self.objective = objective

    def choose(self, scores: np.ndarray, *, name: str, note: str = "") -> Entrant:
        """Make the entrant that takes the highest score of each task; shape (t, m)."""
        return self.take(np.argmax(scores, axis=1), name=name, note=note)

    def take(self, columns: np.ndarray, *, name: str, note: str = "", silent: "np.ndarray | None" = None) -> Entrant:
        """Make the entrant that takes one worker per task, and none where it is silent; shape (t,)."""
        shares = np.zeros_like(self.field.quality)
        shares[np.arange(len(shares)), columns] = 1.0 if silent is None else 1.0 - silent
        return Entrant(name=name, shares=shares, note=note)

    def always(self, worker: int, *, name: str) -> Entrant:
        """Make the entrant that always takes one worker."""
        return self.take(np.full(len(self.field.quality), worker), name=name, note=self.field.workers[worker])

    def uniform(self) -> Entrant:
        """Make the entrant that takes a random worker."""
        return Entrant(name="random", shares=np.full_like(self.field.quality, 1.0 / len(self.field.workers)))

    def oracle(self) -> Entrant:
        """Make the entrant that knows the outcomes; cross-fitted if there are repeats, so that luck does not count."""
        note = "naive: one sample a pair" if self.field.halves is None else "cross-fitted"
        return self.choose(self.utility, name="oracle", note=note)

    def score(self, entrants: Sequence[Entrant], *, seed: int = 0) -> tuple[Line, ...]:
        """Score all entrants; the same seed draws the same tasks for each."""
        best = self.always(self.best_single, name="best single")
        ceiling = self._means(self.oracle())[1].mean() - self._means(best)[1].mean()
        draws = Draws(self.field.groups, rng=np.random.default_rng(seed))
        return tuple(self._score_one(entrant, best, ceiling, draws) for entrant in entrants)

    def _score_one(self, entrant: Entrant, best: Entrant, ceiling: float, draws: Draws) -> Line:
        quality, utility = self._means(entrant)
        base_quality, base_utility = self._means(best)
        gain = float((utility - base_utility).mean())
        return Line(
            name=entrant.name,
            quality=draws.interval(quality),
            gain=draws.interval(quality - base_quality),
            cost_usd=_mean_known(entrant.shares, self.field.cost_usd),
            latency_s=_mean_known(entrant.shares, self.field.latency_s),
            utility=draws.interval(utility),
            utility_gain=draws.interval(utility - base_utility),
            gap_closed=gain / ceiling if ceiling > 1e-9 else None,
            note=entrant.note,
        )

    def _means(self, entrant: Entrant) -> tuple[np.ndarray, np.ndarray]:
        """Return quality and utility on each task. A cross-fitted oracle gets those of the half that it did not see."""
        halves = self.field.halves
        if entrant.name != "oracle" or halves is None:
            silence = value_silence(self.objective) * (1.0 - entrant.shares.sum(axis=1))
            quality = (entrant.shares * self.field.quality).sum(axis=1)
            return quality, (entrant.shares * self.utility).sum(axis=1) + silence
        rows = np.arange(len(self.field.quality))
        quality, utility = np.zeros(len(rows)), np.zeros(len(rows))
        for known, paid in (halves, halves[::-1]):
            chosen = np.argmax(self._utility_of(known), axis=1)
            quality += 0.5 * paid[rows, chosen]
            utility += 0.5 * self._utility_of(paid)[rows, chosen]
        return quality, utility

    def _utility_of(self, quality: np.ndarray) -> np.ndarray:
        worth = weigh_quality(self.objective) * (1.0 + price_error(self.objective))
        return np.asarray(self.utility + worth * (quality - self.field.quality))


def utilities(held_out: Field, objective: Objective, scales: Scales) -> np.ndarray:
    """Score every measured pair, shape (t, m). If silence has a price, a wrong answer has one, too."""
    earned = score_outcomes(held_out.quality, held_out.cost_usd, held_out.latency_s, objective, scales)
    return earned - weigh_quality(objective) * price_error(objective) * (1.0 - held_out.quality)


def value_silence(objective: Objective) -> float:
    """Return the utility of no answer, from the price that the caller states."""
    return -weigh_quality(objective) * (objective.abstain_price or 0.0)


def trace_curves(held_out: Field, *, scores: np.ndarray, expected_cost: np.ndarray) -> dict[str, Curve]:
    """Trace cost against quality for the router and the best mix; empty if costs are unknown."""
    if not held_out.has_costs:
        return {}
    router = sweep_curve(scores, expected_cost, held_out.quality, held_out.cost_usd)
    return {"router": router, "mix of single workers": mix_curve(held_out.quality, held_out.cost_usd)}


def describe_costs(held_out: Field, curves: Mapping[str, Curve], *, best_single: int) -> dict[str, float | None]:
    """Measure the cost-quality figures of a report; empty if costs are unknown."""
    if not curves:
        return {}
    router, mix = curves.values()
    means = held_out.cost_usd.mean(axis=0)
    low, high, best_cost = float(means.min()), float(means.max()), float(means[best_single])
    price = router.price_of(float(held_out.quality[:, best_single].mean()))
    return {
        "area": router.area(low, high),
        "area_of_mix": mix.area(low, high),
        "quality_at_best_cost": router.height_at(best_cost),
        "saved_at_equal_quality": 1.0 - price / best_cost if np.isfinite(price) and best_cost > 0 else None,
    }


def bin_calibration(probabilities: np.ndarray, met: np.ndarray) -> list[tuple[float, float]]:
    """Return mean stated probability and mean measured quality in bins of equal count; both arrays of one shape."""
    p, y = probabilities.ravel(), met.ravel()
    parts = [part for part in np.array_split(np.argsort(p, kind="stable"), CALIBRATION_BINS) if len(part)]
    return [(float(p[part].mean()), float(y[part].mean())) for part in parts]


def give_verdict(router: Line, oracle: Line) -> str:
    """Tell whether the router or the pool limits the result."""
    gap = oracle.utility_gain.mean
    gain = router.utility_gain
    if gap < POOL_BOUND_GAP:
        return f"pool-bound: even the oracle gains only {gap:+.3f} utility over the best single worker"
    share = gain.mean / gap
    if gain.low <= 0.0 <= gain.high:
        finding = "no gain is proven"
    else:
        finding = "a gain is proven" if gain.low > 0.0 else "a loss is proven"
    kind = "near the ceiling" if share >= CEILING_SHARE else "router-bound"
    return (
        f"{kind}: the router closes {share:.0%} of the gap to the oracle ({gain.mean:+.3f} of {gap:+.3f} utility, "
        f"95 % interval {gain.low:+.3f} to {gain.high:+.3f}; {finding})"
    )


def _mean_known(shares: np.ndarray, values: np.ndarray) -> float | None:
    known = ~np.isnan(values)
    if not known.any():
        return None
    weights = shares * known
    total = weights.sum() + (1.0 - shares.sum(axis=1)).sum()
    return float((weights * np.nan_to_num(values)).sum() / total) if total > 0 else None
