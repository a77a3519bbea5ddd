"""Utility: what an answer is worth to this caller, in one number without units.

For quality q, its standard deviation s, cost c, latency L and dial p = preference:

    U = p * (q - k s)+ * (1 - m P(L > deadline)) - (1 - p) * ((1 - t) c / (c + c_ref) + t L / (L + L_ref))

with k rising from 0 to 1.64 with mission criticality, m from 0.5 to 1 and t from 0 to 0.5 with time criticality. U is
in [-1, 1], rises with q and falls with c and L; at p = 1 quality alone decides, at p = 0 price and time alone.

Source:
    Value minus price of error, money and time, as in Zellinger & Thomson (2025), Economic evaluation of LLMs; bounded
    by hyperbolic terms. The `qos` preset is the equation of the QoS tutorial, unchanged.
"""

import math
from dataclasses import dataclass

from ripieno.domain import Estimate, Objective, Privacy

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


def score_utility(estimate: Estimate, objective: Objective, scales: Scales) -> float:
    """Score one estimate for one objective: in [-1, 1], except under the preset `qos`, which has no bound."""
    if objective.preset == "qos":
        return score_qos(
            estimate.quality,
            estimate.latency_s,
            mission=objective.mission_criticality,
            time=objective.time_criticality,
        )
    bound = LCB_SDS * objective.mission_criticality / 10.0
    quality = max(estimate.quality - bound * estimate.quality_sd, 0.0)
    quality *= 1.0 - (0.5 + objective.time_criticality / 20.0) * chance_late(estimate, objective.deadline_s)
    return combine(quality, estimate.cost_usd, estimate.latency_s, objective=objective, scales=scales)


def combine(quality: float, cost_usd: float, latency_s: float, *, objective: Objective, scales: Scales) -> float:
    """Trade known quality, cost and latency against each other; what `evaluate` scores outcomes with."""
    preset = PRESETS.get(objective.preset)
    share = objective.time_criticality / 20.0
    if preset is not None and preset.time_share is not None:
        share = preset.time_share
    price = (1.0 - share) * cost_usd / (cost_usd + scales.cost_usd) + share * latency_s / (latency_s + scales.latency_s)
    return objective.preference * quality - (1.0 - objective.preference) * price


def score_qos(quality: float, latency_s: float, *, mission: float, time: float) -> float:
    """The tutorial's equation: (1 + M/10) quality + (1 + T/10) / L, quality in [0, 1], L at least 0.05 s."""
    return (1.0 + mission / 10.0) * quality + (1.0 + time / 10.0) / max(latency_s, QOS_LEAST_LATENCY_S)


def chance_late(estimate: Estimate, deadline_s: float | None) -> float:
    """Probability that a lognormal latency passes the deadline; 0 without one."""
    if deadline_s is None:
        return 0.0
    spread = max(estimate.latency_log_sd, 1e-6)
    distance = (math.log(deadline_s) - math.log(max(estimate.latency_s, 1e-9))) / spread
    return 0.5 * math.erfc(distance / math.sqrt(2.0))
