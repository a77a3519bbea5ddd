"""Utility: what an answer is worth to this caller, in one number without units.

For quality q, its standard deviation s, cost c, latency L and dial p = preference:

    U = p * (q - k s)+ * (1 - m P(L > deadline)) - (1 - p) * ((1 - t) c / (c + c_ref) + t L / (L + L_ref))

minus w c where a budget's pacer has set a money weight w. An unknown cost counts as the highest known one of the
workers beside it, and at least as c_ref. k rises from 0 to 1.64 with mission criticality, m
from 0.5 to 1 and t from 0 to 0.5 with time criticality. Without w, U is in [-1, 1]; it rises with q and falls with c
and L; at p = 1 quality alone decides, at p = 0 price and time alone.

Source:
    Value minus price of error, money and time, as in Zellinger & Thomson (2025), Economic evaluation of LLMs; bounded
    by hyperbolic terms. The `qos` preset is the equation of the QoS tutorial, unchanged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ripieno.domain import Estimate, Matrix, Objective, Privacy, WorkerId

Rows: TypeAlias = npt.NDArray[np.int64]

LCB_SDS = 1.64
"""One-sided 95 % bound of a normal, reached at mission criticality 10."""
QOS_LEAST_LATENCY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """What counts as an ordinary price and an ordinary wait in this pool."""

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
    """Share of time in the price of an answer, in [0, 1]; None leaves it to time criticality."""
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
    """Arrays of one shape that broadcast: what is expected, or was measured, of some (task, worker) pairs."""

    quality: Matrix
    cost_usd: Matrix
    """NaN where unknown."""
    latency_s: Matrix
    quality_sd: Matrix | float = 0.0
    latency_log_sd: Matrix | float = 0.0
    """Spread of the logarithm of latency; 0 where the latency is known."""


def score_utilities(pairs: Priced, objective: Objective, scales: Scales) -> Matrix:
    """Score pairs for one objective: each in [-1, 1], except under `qos` or a money weight, which have no bound."""
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
    cost = fill_unknown_costs(pairs.cost_usd, scales)
    money = cost / (cost + scales.cost_usd)
    wait = pairs.latency_s / (pairs.latency_s + scales.latency_s)
    price = (1.0 - share) * money + share * wait
    worth = objective.preference * quality - (1.0 - objective.preference) * price
    return np.asarray(worth - objective.money_weight * cost)


def fill_unknown_costs(cost_usd: Matrix, scales: Scales) -> Matrix:
    """Costs with each unknown one (NaN) as high as the highest known one beside it, and at least an ordinary price.

    Args:
        cost_usd: workers stand in the last axis.
        scales: the ordinary price.
    """
    cost = np.asarray(cost_usd, dtype=float)
    is_unknown = np.isnan(cost)
    if not is_unknown.any():
        return cost
    known = np.where(is_unknown, 0.0, cost)
    highest = known.max(axis=-1, keepdims=True) if cost.ndim else known
    return np.where(is_unknown, np.maximum(highest, scales.cost_usd), cost)


def score_outcome(
    quality: float, cost_usd: float | None, latency_s: float | None, objective: Objective, scales: Scales
) -> float:
    """Utility of what was met; an unknown cost counts as an ordinary price, an unknown latency as none."""
    cost = math.nan if cost_usd is None else cost_usd
    met = Priced(quality=np.array(quality), cost_usd=np.array(cost), latency_s=np.array(latency_s or 0.0))
    return float(score_utilities(met, objective, scales))


def score_utility(estimate: Estimate, objective: Objective, scales: Scales) -> float:
    """Score one estimate; see `score_utilities`."""
    return float(score_utilities(gather_estimates([estimate]), objective, scales)[0])


def gather_estimates(estimates: Sequence[Estimate]) -> Priced:
    """Estimates as arrays of shape (m,); an unknown cost is NaN."""
    rows = np.array(
        [
            (e.quality, math.nan if e.cost_usd is None else e.cost_usd, e.latency_s, e.quality_sd, e.latency_log_sd)
            for e in estimates
        ]
    )
    quality, cost, latency, sd, log_sd = rows.T
    return Priced(quality=quality, cost_usd=cost, latency_s=latency, quality_sd=sd, latency_log_sd=log_sd)


def is_worth_asking(estimate: Estimate, objective: Objective) -> bool:
    """Whether an answer of this worker is worth more than none.

    With e the price of a wrong answer and A that of none, in units of what a right one is worth, an answer is worth
    q - e (1 - q), and none -A. e rises tenfold with every five points of mission criticality and is 1 at five.

    Source:
        Chow (1970), On optimum recognition error and reject tradeoff; prices as in Zellinger & Thomson (2025).
    """
    if objective.abstain_price is None:
        return True
    error = math.pow(10.0, objective.mission_criticality / 5.0 - 1.0)
    quality = max(estimate.quality - LCB_SDS * objective.mission_criticality / 10.0 * estimate.quality_sd, 0.0)
    return quality - error * (1.0 - quality) >= -objective.abstain_price


def find_incumbent(estimates: Sequence[Estimate], objective: Objective, scales: Scales) -> int:
    """Index of the worker that would lead if quality did not depend on the task."""
    pairs = gather_estimates(estimates)
    usual = np.array([e.quality if e.mean_quality is None else e.mean_quality for e in estimates])
    return int(np.argmax(score_utilities(replace(pairs, quality=usual), objective, scales)))


def find_leader(
    estimates: Sequence[Estimate],
    objective: Objective,
    scales: Scales,
    *,
    margin: float,
    scores: Sequence[float] | None = None,
) -> WorkerId:
    """The worker with the highest utility, where it passes the incumbent's by the margin; else the incumbent.

    Args:
        estimates: at least one.
        objective: what the caller wants.
        scales: the ordinary price and wait.
        margin: in quality.
        scores: the estimates' utilities, where they are known already.
    """
    if scores is None:
        scores = score_utilities(gather_estimates(estimates), objective, scales).tolist()
    best = max(range(len(estimates)), key=scores.__getitem__)
    if margin == 0.0:
        return estimates[best].worker
    incumbent = find_incumbent(estimates, objective, scales)
    is_ahead = scores[best] - scores[incumbent] > margin * weigh_quality(objective)
    return estimates[best if is_ahead else incumbent].worker


def weigh_quality(objective: Objective) -> float:
    """How much utility one unit of quality is worth."""
    return 1.0 + objective.mission_criticality / 10.0 if objective.preset == "qos" else objective.preference


def keep_incumbent(scores: Matrix, incumbents: Rows, margin: float) -> Rows:
    """The highest score of each row where it passes the incumbent's by more than `margin`, else the incumbent.

    Args:
        scores: shape (n, m).
        incumbents: column of the incumbent of each row, shape (n,).
        margin: in the unit of the scores.
    """
    rows, best = np.arange(len(scores)), np.argmax(scores, axis=1)
    return np.where(scores[rows, best] - scores[rows, incumbents] > margin, best, incumbents)


def score_qos(quality: Matrix, latency_s: Matrix, *, mission: float, time: float) -> Matrix:
    """The tutorial's equation: (1 + M/10) quality + (1 + T/10) / L, quality in [0, 1], L at least 0.05 s."""
    speed = 1.0 / np.maximum(latency_s, QOS_LEAST_LATENCY_S)
    return np.asarray((1.0 + mission / 10.0) * quality + (1.0 + time / 10.0) * speed)


def chance_late(latency_s: Matrix, log_sd: Matrix | float, deadline_s: float) -> Matrix:
    """Probability that a lognormal latency passes the deadline."""
    spread = np.maximum(log_sd, 1e-6)
    distance = (math.log(deadline_s) - np.log(np.maximum(latency_s, 1e-9))) / spread
    return np.asarray(0.5 * _ERFC(distance / math.sqrt(2.0)))


_ERFC = np.vectorize(math.erfc, otypes=[float])
