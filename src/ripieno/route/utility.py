"""Utility: the worth of an answer to the caller, as one number without a unit.

For quality q, its standard deviation s, cost c, latency L and dial p = preference:

    U = p * (q - k s)+ * (1 - m P(L > deadline)) - (1 - p) * ((1 - t) c / (c + c_ref) + t L / (L + L_ref))

minus w c if a budget's pacer has set a money weight w. An unknown cost counts as the highest known cost of the other
workers, and at least as c_ref. k rises from 0 to 1.64 with mission criticality; m rises from 0.5 to 1, and t from 0 to
0.5, with time criticality. Without w, U is in [-1, 1]. It rises with q and falls with c and L. At p = 1 only quality
counts; at p = 0 only price and time.

Source:
    Value minus price of error, money and time, as in Zellinger & Thomson (2025), Economic evaluation of LLMs; bounded
    by hyperbolic terms. The `qos` preset is the equation of the QoS tutorial, unchanged.
"""

import math
from dataclasses import dataclass

import numpy as np

from ripieno.domain import Matrix, Objective, Privacy

LCB_SDS = 1.64
"""One-sided 95 % bound of a normal, reached at mission criticality 10."""
QOS_LEAST_LATENCY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """The typical price and wait of a pool."""

    cost_usd: float = 0.001
    latency_s: float = 2.0

    def __post_init__(self) -> None:
        if not (self.cost_usd > 0.0 and self.latency_s > 0.0):
            raise ValueError(f"scales must be positive, got {self.cost_usd!r} and {self.latency_s!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named point of the trade-off."""

    preference: float
    time_share: float | None = None
    """Share of time in the price of an answer, in [0, 1]; None derives it from time criticality."""
    privacy: Privacy = Privacy.PUBLIC


PRESETS = {
    "balanced": Preset(preference=0.8),
    "best": Preset(preference=1.0),
    "cheap": Preset(preference=0.4, time_share=0.0),
    "fast": Preset(preference=0.5, time_share=0.9),
    "private": Preset(preference=0.8, privacy=Privacy.LOCAL),
    "qos": Preset(preference=0.8),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Priced:
    """Expected or measured values of (task, worker) pairs. The arrays broadcast to one shape."""

    quality: Matrix
    cost_usd: Matrix
    """NaN if unknown."""
    latency_s: Matrix
    quality_sd: Matrix | float = 0.0
    latency_log_sd: Matrix | float = 0.0
    """Standard deviation of log latency; 0 if the latency is known."""


def score_utilities(
    pairs: Priced, objective: Objective, scales: Scales, *, among: "np.ndarray | None" = None
) -> Matrix:
    """Compute the utility of pairs, in [-1, 1]; under `qos` or a money weight it has no bound.

    Args:
        pairs: expected or measured values.
        objective: the caller's objective.
        scales: the typical price and wait.
        among: pairs whose costs determine an unknown cost, of the pairs' shape; all if None.
    """
    if objective.preset == "qos":
        return score_qos(
            pairs.quality,
            pairs.latency_s,
            mission=objective.mission_criticality,
            time=objective.time_criticality,
        )
    bound = LCB_SDS * objective.mission_criticality / 10.0
    quality = np.maximum(pairs.quality - bound * pairs.quality_sd, 0.0)
    if objective.deadline_s is not None:
        late = chance_late(pairs.latency_s, pairs.latency_log_sd, objective.deadline_s)
        quality = quality * (1.0 - (0.5 + objective.time_criticality / 20.0) * late)
    preset = PRESETS.get(objective.preset)
    share = objective.time_criticality / 20.0
    if preset is not None and preset.time_share is not None:
        share = preset.time_share
    cost = fill_unknown_costs(pairs.cost_usd, scales, among=among)
    money = cost / (cost + scales.cost_usd)
    wait = pairs.latency_s / (pairs.latency_s + scales.latency_s)
    price = (1.0 - share) * money + share * wait
    worth = np.asarray(objective.preference * quality - (1.0 - objective.preference) * price)
    return worth - objective.money_weight * cost if objective.money_weight else worth


def fill_unknown_costs(cost_usd: Matrix, scales: Scales, *, among: "np.ndarray | None" = None) -> Matrix:
    """Replace each unknown cost (NaN) by the highest known cost of the other workers, and at least a typical price.

    Args:
        cost_usd: costs; the last axis is the workers.
        scales: the typical price.
        among: entries whose known costs count, of the same shape; all if None.
    """
    cost = np.asarray(cost_usd, dtype=float)
    is_unknown = np.isnan(cost)
    if not np.count_nonzero(is_unknown):
        return cost
    known = np.where(is_unknown if among is None else is_unknown | ~among, 0.0, cost)
    highest = known.max(axis=-1, keepdims=True) if cost.ndim else known
    return np.where(is_unknown, np.maximum(highest, scales.cost_usd), cost)


def score_outcomes(
    quality: Matrix, cost_usd: Matrix, latency_s: Matrix, objective: Objective, scales: Scales
) -> Matrix:
    """Compute the utility of outcomes. An unknown latency (NaN) counts as 0, and an unknown quality gives NaN."""
    return score_utilities(
        Priced(quality=quality, cost_usd=cost_usd, latency_s=np.nan_to_num(latency_s)), objective, scales
    )


def score_outcome(
    quality: float, cost_usd: float | None, latency_s: float | None, objective: Objective, scales: Scales
) -> float:
    """Compute the utility of one outcome. An unknown cost counts as a typical price, an unknown latency as 0."""
    cost, latency = (math.nan if value is None else value for value in (cost_usd, latency_s))
    return float(score_outcomes(np.array(quality), np.array(cost), np.array(latency), objective, scales))


def price_error(objective: Objective) -> float:
    """Return the price of a wrong answer, in units of the worth of a right one; 0 if abstention has no price.

    It is 1 at a mission criticality of five, and rises tenfold with every five points.
    """
    return 0.0 if objective.abstain_price is None else math.pow(10.0, objective.mission_criticality / 5.0 - 1.0)


def weigh_quality(objective: Objective) -> float:
    """Return the utility of one unit of quality."""
    return 1.0 + objective.mission_criticality / 10.0 if objective.preset == "qos" else objective.preference


def score_qos(quality: Matrix, latency_s: Matrix, *, mission: float, time: float) -> Matrix:
    """Compute (1 + M/10) quality + (1 + T/10) / L, the tutorial's equation; quality in [0, 1], L at least 0.05 s."""
    speed = 1.0 / np.maximum(latency_s, QOS_LEAST_LATENCY_S)
    return np.asarray((1.0 + mission / 10.0) * quality + (1.0 + time / 10.0) * speed)


def chance_late(latency_s: Matrix, log_sd: Matrix | float, deadline_s: float) -> Matrix:
    """Return the probability that a lognormal latency exceeds the deadline."""
    spread = np.maximum(log_sd, 1e-6)
    distance = (math.log(deadline_s) - np.log(np.maximum(latency_s, 1e-9))) / spread
    tails = np.fromiter(map(math.erfc, (distance / math.sqrt(2.0)).ravel().tolist()), np.float64, distance.size)
    return np.asarray(0.5 * tails.reshape(distance.shape))
