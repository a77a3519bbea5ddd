"""The default policy: take the worker with the highest utility; explore a little where it can do no harm."""

from collections.abc import Mapping, Sequence

import numpy as np

from ripieno.domain import Choice, Estimate, Features, JsonValue, Objective, WorkerId
from ripieno.route.utility import Scales, find_leader, gather_estimates, score_utilities

CRITICAL = 7.0
"""From this mission criticality on, nothing is tried out."""
PLAUSIBLE_SDS = 2.0


class UtilityPolicy:
    """Greedy in utility, guarded, with an exploration share spread evenly over plausible workers.

    Args:
        exploration: probability of trying a plausible worker at random, in [0, 1).
        scales: the ordinary price and wait that utility is measured against.
        margin: quality by which a worker must be ahead of the incumbent, who would lead if quality did not depend on
            the task; what held-out tasks showed to pay.
    """

    name = "utility"

    def __init__(self, *, exploration: float = 0.0, scales: Scales | None = None, margin: float = 0.0) -> None:
        self.exploration = exploration
        self.scales = scales or Scales()
        self.margin = margin

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """The policy's parameters."""
        return {
            "exploration": self.exploration,
            "reference_cost_usd": self.scales.cost_usd,
            "reference_latency_s": self.scales.latency_s,
            "margin": self.margin,
        }

    def decide(
        self,
        features: Features,
        estimates: Sequence[Estimate],
        *,
        objective: Objective,
        rng: np.random.Generator,
    ) -> Choice:
        """Order the workers by utility; those below the quality floor come last."""
        scores = score_utilities(gather_estimates(estimates), objective, self.scales)
        utilities = dict(zip((e.worker for e in estimates), scores.tolist(), strict=True))
        above = {e.worker: e.quality >= objective.quality_floor for e in estimates}
        ranked = sorted(utilities, key=lambda worker: (above[worker], utilities[worker]), reverse=True)
        candidates = [e for e in estimates if above[e.worker] == above[ranked[0]]]
        leader = find_leader(candidates, objective, self.scales, margin=self.margin)
        reason = _explain_lead(ranked, utilities) if leader == ranked[0] else _explain_guard(leader, ranked, utilities)
        ranked = [leader, *(worker for worker in ranked if worker != leader)]
        chosen, propensity, tried = self._explore(ranked, estimates, objective=objective, rng=rng)
        order = (chosen, *(worker for worker in ranked if worker != chosen))
        reasons = [tried or reason]
        if objective.quality_floor and not above[chosen]:
            reasons.append(f"no eligible worker is expected to reach quality {objective.quality_floor:.2f}")
        return Choice(order=order, propensity=propensity, utilities=utilities, reasons=tuple(reasons))

    def _explore(
        self,
        ranked: Sequence[WorkerId],
        estimates: Sequence[Estimate],
        *,
        objective: Objective,
        rng: np.random.Generator,
    ) -> tuple[WorkerId, float, str | None]:
        plausible = _find_plausible(ranked[0], estimates)
        share = 0.0 if objective.mission_criticality >= CRITICAL or len(plausible) < 2 else self.exploration
        floor = share / len(plausible)
        if share and rng.random() < share:
            chosen = plausible[int(rng.integers(len(plausible)))]
            if chosen != ranked[0]:
                return chosen, floor, f"tried out: one of {len(plausible)} plausible workers"
        return ranked[0], 1.0 - share + floor, None


def _find_plausible(best: WorkerId, estimates: Sequence[Estimate]) -> list[WorkerId]:
    """Workers whose quality could be as good as the best one's."""
    leader = next(e for e in estimates if e.worker == best)
    return [
        e.worker
        for e in estimates
        if e.worker == best
        or e.quality + PLAUSIBLE_SDS * e.quality_sd >= leader.quality - PLAUSIBLE_SDS * leader.quality_sd
    ]


def _explain_lead(ranked: Sequence[WorkerId], utilities: dict[WorkerId, float]) -> str:
    best = ranked[0]
    if len(ranked) == 1:
        return f"{best} is the only eligible worker"
    lead = utilities[best] - utilities[ranked[1]]
    return f"{best} has the highest utility, {utilities[best]:.3f}, {lead:.3f} ahead of {ranked[1]}"


def _explain_guard(leader: WorkerId, ranked: Sequence[WorkerId], utilities: dict[WorkerId, float]) -> str:
    lead = utilities[ranked[0]] - utilities[leader]
    return f"{leader} is the best single worker, and {ranked[0]} is ahead by {lead:.3f} only: too little to be trusted"
