"""The decision rule: from estimates of n tasks on m workers to the worker of each task.

The policy of the gateway is the case n = 1. Benchmarks, explanations, audits and promotions call the same functions, so
they measure the rule that is served. Its parts, in order:

    ladder       a new worker rises from masked over shadow and trial to free; only free workers may lead
    floor        workers below the quality floor may lead only if no free worker reaches it
    utility      the candidate with the highest utility, deadline included, leads
    guard        the incumbent leads unless another worker is ahead by the margin
    exploration  a small share of the tasks goes to workers on trial, and to plausible workers
    abstention   no worker is called if no answer is worth more than the expected one
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ripieno.domain import Estimate, JsonValue, Matrix, Objective, Standing
from ripieno.route.utility import LCB_SDS, Priced, Scales, price_error, score_utilities, weigh_quality

Rows: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

CRITICAL = 7.0
"""Mission criticality from which nothing is explored."""
PLAUSIBLE_SDS = 2.0
TRIAL_SHARE = 0.02
"""Share of the suitable tasks that go to workers on trial."""
TRIAL_CHANCE = 0.3
"""Lowest probability of being better than the leader at which a task is suitable."""
_TRIAL_SDS = NormalDist().inv_cdf(TRIAL_CHANCE)
_RANK = {standing: float(index) for index, standing in enumerate(Standing)}
_MASKED, _TRIAL, _FREE = (_RANK[each] for each in (Standing.MASKED, Standing.TRIAL, Standing.FREE))
_LOWEST = float(np.finfo(np.float64).min)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRule:
    """The options of the rule. Each decision records them."""

    exploration: float = 0.0
    """Probability of trying a plausible worker at random, in [0, 1)."""
    scales: Scales = field(default_factory=Scales)
    """The typical price and wait."""
    margin: float = 0.0
    """Quality by which a worker must be ahead of the incumbent, chosen on held-out tasks."""
    has_ladder: bool = True
    """True if new workers rise on the ladder. Otherwise, or if no worker is free yet, they are free at once."""

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Return the options as a decision records them."""
        return {
            "exploration": self.exploration,
            "reference_cost_usd": self.scales.cost_usd,
            "reference_latency_s": self.scales.latency_s,
            "margin": self.margin,
            "has_ladder": self.has_ladder,
        }

    @classmethod
    def read(cls, facts: Mapping[str, JsonValue]) -> "DecisionRule":
        """Read recorded options. A missing one, as in the facts of a plugin, takes its default."""
        default, known = cls(), {name: value for name, value in facts.items() if isinstance(value, float)}
        return cls(
            exploration=known.get("exploration", default.exploration),
            scales=Scales(
                cost_usd=known.get("reference_cost_usd", default.scales.cost_usd),
                latency_s=known.get("reference_latency_s", default.scales.latency_s),
            ),
            margin=known.get("margin", default.margin),
            has_ladder=bool(facts.get("has_ladder", default.has_ladder)),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EstimateArrays:
    """Estimates of n tasks on m workers. Every array has the shape (n, m)."""

    expected: Priced
    mean_quality: Matrix
    """Quality over all known tasks. It determines the incumbent."""
    standing: Matrix
    """Index in `Standing` of each worker."""
    is_measured: Flags
    is_eligible: Flags | None = None
    """The mask; None if all are eligible. Every row has an eligible worker, and only eligible workers are chosen."""

    @classmethod
    def of_known(cls, expected: Priced, mean_quality: Matrix) -> "EstimateArrays":
        """Make the estimates of workers that are all eligible, measured and free."""
        shape = expected.quality.shape
        return cls(
            expected=expected,
            mean_quality=np.broadcast_to(mean_quality, shape),
            standing=np.full(shape, _FREE),
            is_measured=np.ones(shape, dtype=bool),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choices:
    """The rule's results for n tasks, before exploration."""

    utility: Matrix
    """Shape (n, m)."""
    standing: Matrix
    """Standing of each worker by the ladder; masked if the worker is not eligible, shape (n, m)."""
    is_above: Flags
    """True if the worker reaches the quality floor, shape (n, m)."""
    candidates: Flags
    """True if the worker may lead, shape (n, m)."""
    leader: Rows
    """The candidate with the highest utility or, if the guard applies, the incumbent, shape (n,)."""


def gather_estimates(estimates: Sequence[Estimate]) -> EstimateArrays:
    """Gather the estimates of one task's eligible workers, n = 1."""
    rows = [
        (
            e.quality,
            nan if e.cost_usd is None else e.cost_usd,
            e.latency_s,
            e.quality_sd,
            e.latency_log_sd,
            e.quality if e.mean_quality is None else e.mean_quality,
            _RANK[e.standing],
            e.is_measured,
        )
        for e in estimates
    ]
    parts = np.array(list(zip(*rows, strict=True)), dtype=np.float64).reshape(8, 1, len(rows))
    quality, cost, latency, sd, log_sd, usual, standing, measured = parts
    return EstimateArrays(
        expected=Priced(quality=quality, cost_usd=cost, latency_s=latency, quality_sd=sd, latency_log_sd=log_sd),
        mean_quality=usual,
        standing=standing,
        is_measured=measured > 0.0,
    )


def choose(estimates: EstimateArrays, objective: Objective, rule: DecisionRule) -> Choices:
    """Choose the worker of each task, without exploration."""
    expected = estimates.expected
    utility = score_utilities(expected, objective, rule.scales, among=estimates.is_eligible)
    standing = climb_ladder(estimates, has_ladder=rule.has_ladder)
    is_above = expected.quality >= objective.quality_floor
    candidates = prefer_above(standing == _FREE, is_above)
    leader = take_highest(utility, candidates)
    if rule.margin != 0.0:
        usual = replace(expected, quality=estimates.mean_quality)
        incumbents = take_highest(score_utilities(usual, objective, rule.scales, among=candidates), candidates)
        leader = guard(utility, leader, incumbents, margin=rule.margin * weigh_quality(objective))
    return Choices(utility=utility, standing=standing, is_above=is_above, candidates=candidates, leader=leader)


def climb_ladder(estimates: EstimateArrays, *, has_ladder: bool) -> Matrix:
    """Find the standing of each worker. If no free worker is eligible, all eligible ones are free."""
    standing, is_eligible = estimates.standing, estimates.is_eligible
    is_free = standing == _FREE
    if is_eligible is not None:
        is_free &= is_eligible
    if _hold(is_free):
        return standing
    if has_ladder:
        standing = np.where(is_free.any(axis=1, keepdims=True), standing, _FREE)
    else:
        standing = np.full(standing.shape, _FREE)
    return standing if is_eligible is None else np.where(is_eligible, standing, _MASKED)


def prefer_above(candidates: Flags, is_above: Flags) -> Flags:
    """Keep the candidates that reach the quality floor; keep all if none does."""
    if _hold(is_above):
        return candidates
    above = candidates & is_above
    return np.where(above.any(axis=1, keepdims=True), above, candidates)


def take_highest(scores: Matrix, candidates: Flags) -> Rows:
    """Find the candidate with the highest score in each row, the first of equals."""
    known = np.fmax(scores, _LOWEST)
    return np.asarray((known if _hold(candidates) else np.where(candidates, known, -np.inf)).argmax(axis=1))


def guard(scores: Matrix, best: Rows, incumbents: Rows, *, margin: float) -> Rows:
    """Keep the incumbents, shape (n,), unless the best is ahead by more than `margin`, in units of the scores."""
    return np.where(_take(scores, best) - _take(scores, incumbents) > margin, best, incumbents)


def rank(found: Choices, row: int) -> Rows:
    """Order the unmasked workers of one task by standing, then by the floor, then by utility."""
    falling, standing = -found.utility[row], found.standing[row]
    if _hold(found.candidates[row]):
        return np.asarray(falling.argsort(kind="stable"))
    order = np.lexsort((falling, ~found.is_above[row], -standing))
    return np.asarray(order[: np.count_nonzero(standing > _MASKED)])


def find_trials(estimates: EstimateArrays, found: Choices) -> Flags:
    """Find the workers on trial that reach the floor and may well be better than the leader."""
    on_trial = found.standing == _TRIAL
    if not np.count_nonzero(on_trial):
        return np.asarray(on_trial)
    quality, sd = estimates.expected.quality, np.broadcast_to(estimates.expected.quality_sd, on_trial.shape)
    spread = np.maximum(np.hypot(sd, _take(sd, found.leader)[:, None]), 1e-9)
    is_fair = quality - _take(quality, found.leader)[:, None] > _TRIAL_SDS * spread
    return np.asarray(on_trial & found.is_above & is_fair)


def find_plausible(estimates: EstimateArrays, found: Choices) -> Flags:
    """Find the candidates whose quality could equal the leader's; the leader alone if it is not measured."""
    quality, reach = estimates.expected.quality, PLAUSIBLE_SDS * estimates.expected.quality_sd
    could = found.candidates & (quality + reach >= _take(quality - reach, found.leader)[:, None])
    if _hold(estimates.is_measured):
        return could
    is_leader = np.arange(quality.shape[1]) == found.leader[:, None]
    return np.where(_take(estimates.is_measured, found.leader)[:, None], could, is_leader)


def explore(
    estimates: EstimateArrays,
    found: Choices,
    objective: Objective,
    rule: DecisionRule,
    rngs: Sequence[np.random.Generator],
) -> list[tuple[int, float]]:
    """Draw the worker of each task: usually the leader, seldom a worker on trial or a plausible one.

    Args:
        estimates: estimates of n tasks.
        found: results of `choose`.
        objective: the objective; a critical one explores nothing.
        rule: the rule; its exploration is the total share of the plausible workers.
        rngs: one generator per task.

    Returns:
        The column of each task's worker, and the probability of the draw.
    """
    leaders = found.leader.tolist()
    if objective.mission_criticality >= CRITICAL:
        return [(leader, 1.0) for leader in leaders]
    trials = find_trials(estimates, found)
    plausible = find_plausible(estimates, found) if rule.exploration else np.zeros_like(trials)
    return [
        _draw(leader, on_trial.nonzero()[0], could.nonzero()[0], exploration=rule.exploration, rng=rng)
        for leader, on_trial, could, rng in zip(leaders, trials, plausible, rngs, strict=True)
    ]


def abstain(estimates: EstimateArrays, chosen: Rows, objective: Objective) -> Flags:
    """Find the tasks on which no answer is worth more than the chosen worker's expected one, shape (n,).

    With e the price of a wrong answer and A the price of no answer, in units of the worth of a right one, an answer is
    worth q - e (1 - q), and no answer -A.

    Source:
        Chow (1970), On optimum recognition error and reject tradeoff; prices as in Zellinger & Thomson (2025).
    """
    if objective.abstain_price is None:
        return np.zeros(len(chosen), dtype=bool)
    quality, sd = estimates.expected.quality, np.broadcast_to(estimates.expected.quality_sd, estimates.standing.shape)
    bound = LCB_SDS * objective.mission_criticality / 10.0
    lower = np.maximum(_take(quality, chosen) - bound * _take(sd, chosen), 0.0)
    return ~np.asarray(lower - price_error(objective) * (1.0 - lower) >= -objective.abstain_price)


def _draw(
    leader: int, trials: Rows, plausible: Rows, *, exploration: float, rng: np.random.Generator
) -> tuple[int, float]:
    """Draw one worker with its probability. Nothing is drawn if there is nothing to explore."""
    trial = TRIAL_SHARE if len(trials) else 0.0
    share = exploration if len(plausible) > 1 else 0.0
    if not trial and not share:
        return leader, 1.0
    drawn, each = rng.random(), share / max(len(plausible), 1)
    if drawn < trial:
        return int(trials[rng.integers(len(trials))]), trial / len(trials)
    if drawn < trial + share:
        tried = int(plausible[rng.integers(len(plausible))])
        if tried != leader:
            return tried, each
    return leader, 1.0 - trial - share + each


def _hold(flags: Flags) -> bool:
    """Return whether all flags are set; for few flags this is faster than `all`."""
    return bool(np.count_nonzero(flags) == flags.size)


def _take(values: "np.ndarray", columns: Rows) -> "np.ndarray":
    """Take one column of each row, shape (n,); a single row has a faster path."""
    return np.asarray(values[0].take(columns) if len(values) == 1 else values[np.arange(len(values)), columns])
