"""The default policy: take the worker with the highest utility; explore a little where it can do no harm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erf, hypot, sqrt

import numpy as np

from ripieno.domain import Choice, Estimate, Features, JsonValue, Objective, Standing, WorkerId
from ripieno.route.utility import Scales, find_leader, gather_estimates, is_worth_asking, score_utilities

CRITICAL = 7.0
"""From this mission criticality on, nothing is tried out."""
PLAUSIBLE_SDS = 2.0
TRIAL_SHARE = 0.02
"""Share of the tasks a new worker may be best at that it gets before it is free."""
TRIAL_CHANCE = 0.3
"""Least chance of being better than the leader at which a task is one of those."""
_RANK = {standing: index for index, standing in enumerate(Standing)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    order: tuple[WorkerId, ...]
    reason: str
    trials: tuple[WorkerId, ...]
    plausible: tuple[WorkerId, ...]


class UtilityPolicy:
    """Greedy in utility, guarded, with an exploration share spread evenly over plausible workers.

    Args:
        exploration: probability of trying a plausible worker at random, in [0, 1).
        scales: the ordinary price and wait that utility is measured against.
        margin: quality by which a worker must be ahead of the incumbent, who would lead if quality did not depend on
            the task; what held-out tasks showed to pay.
        has_ladder: whether new workers climb from shadow over trial to free; without it, or where nobody is free yet,
            they are free at once: a pool of new workers must answer all the same.
    """

    name = "utility"

    def __init__(
        self, *, exploration: float = 0.0, scales: Scales | None = None, margin: float = 0.0, has_ladder: bool = True
    ) -> None:
        self.exploration = exploration
        self.scales = scales or Scales()
        self.margin = margin
        self.has_ladder = has_ladder

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """The policy's parameters."""
        return {
            "exploration": self.exploration,
            "reference_cost_usd": self.scales.cost_usd,
            "reference_latency_s": self.scales.latency_s,
            "margin": self.margin,
            "has_ladder": self.has_ladder,
        }

    def decide(
        self,
        features: Features,
        estimates: Sequence[Estimate],
        *,
        objective: Objective,
        rng: np.random.Generator,
    ) -> Choice:
        """Order the workers by utility; those below the quality floor, and new ones, come last."""
        scores = score_utilities(gather_estimates(estimates), objective, self.scales)
        utilities = dict(zip((e.worker for e in estimates), scores.tolist(), strict=True))
        ranked = self._rank(estimates, utilities, objective)
        chosen, propensity, tried = self._explore(ranked, objective=objective, rng=rng)
        order = (chosen, *(worker for worker in ranked.order if worker != chosen))
        reasons = [tried or ranked.reason]
        found = next(e for e in estimates if e.worker == chosen)
        if objective.quality_floor and found.quality < objective.quality_floor:
            reasons.append(f"no eligible worker is expected to reach quality {objective.quality_floor:.2f}")
        abstains = not is_worth_asking(found, objective)
        if abstains:
            reasons.insert(0, f"no answer is better than one of quality {found.quality:.2f}, the best to be expected")
        return Choice(
            order=order, propensity=propensity, utilities=utilities, reasons=tuple(reasons), abstains=abstains
        )

    def _rank(
        self, estimates: Sequence[Estimate], utilities: Mapping[WorkerId, float], objective: Objective
    ) -> _Ranked:
        holds = self.has_ladder and any(e.standing == Standing.FREE for e in estimates)
        standing = {e.worker: e.standing if holds else Standing.FREE for e in estimates}
        above = {e.worker: e.quality >= objective.quality_floor for e in estimates}
        admitted = [e for e in estimates if standing[e.worker] != Standing.MASKED]
        order = sorted(
            (e.worker for e in admitted),
            key=lambda worker: (_RANK[standing[worker]], above[worker], utilities[worker]),
            reverse=True,
        )
        free = [e for e in admitted if standing[e.worker] == Standing.FREE]
        candidates = [e for e in free if above[e.worker] == above[order[0]]]
        scores = [utilities[e.worker] for e in candidates]
        leader = find_leader(candidates, objective, self.scales, margin=self.margin, scores=scores)
        is_first = leader == order[0]
        reason = _explain_lead(order, utilities) if is_first else _explain_guard(leader, order, utilities)
        ahead = next(e for e in free if e.worker == leader)
        trials = [e for e in admitted if standing[e.worker] == Standing.TRIAL and above[e.worker]]
        return _Ranked(
            order=(leader, *(worker for worker in order if worker != leader)),
            reason=reason,
            trials=tuple(e.worker for e in trials if _chance_better(e, ahead) > TRIAL_CHANCE),
            plausible=_find_plausible(ahead, candidates),
        )

    def _explore(
        self, ranked: _Ranked, *, objective: Objective, rng: np.random.Generator
    ) -> tuple[WorkerId, float, str | None]:
        leader = ranked.order[0]
        if objective.mission_criticality >= CRITICAL:
            return leader, 1.0, None
        trial = TRIAL_SHARE if ranked.trials else 0.0
        share = self.exploration if len(ranked.plausible) > 1 else 0.0
        floor = share / max(len(ranked.plausible), 1)
        draw = rng.random() if trial or share else 1.0
        if draw < trial:
            chosen = ranked.trials[int(rng.integers(len(ranked.trials)))]
            return chosen, trial / len(ranked.trials), f"{chosen} is new and on trial"
        if draw < trial + share:
            chosen = ranked.plausible[int(rng.integers(len(ranked.plausible)))]
            if chosen != leader:
                return chosen, floor, f"tried out: one of {len(ranked.plausible)} plausible workers"
        return leader, 1.0 - trial - share + floor, None


def _find_plausible(leader: Estimate, estimates: Sequence[Estimate]) -> tuple[WorkerId, ...]:
    """Workers whose quality could be as good as the leader's; nobody where nothing was measured."""
    if not leader.is_measured:
        return (leader.worker,)
    bar = leader.quality - PLAUSIBLE_SDS * leader.quality_sd
    return tuple(
        e.worker for e in estimates if e.worker == leader.worker or e.quality + PLAUSIBLE_SDS * e.quality_sd >= bar
    )


def _chance_better(newcomer: Estimate, leader: Estimate) -> float:
    spread = max(hypot(newcomer.quality_sd, leader.quality_sd), 1e-9)
    return 0.5 * (1.0 + erf((newcomer.quality - leader.quality) / spread / sqrt(2.0)))


def _explain_lead(ranked: Sequence[WorkerId], utilities: Mapping[WorkerId, float]) -> str:
    best = ranked[0]
    if len(ranked) == 1:
        return f"{best} is the only eligible worker"
    lead = utilities[best] - utilities[ranked[1]]
    return f"{best} has the highest utility, {utilities[best]:.3f}, {lead:.3f} ahead of {ranked[1]}"


def _explain_guard(leader: WorkerId, ranked: Sequence[WorkerId], utilities: Mapping[WorkerId, float]) -> str:
    lead = utilities[ranked[0]] - utilities[leader]
    return f"{leader} is the best single worker, and {ranked[0]} is ahead by {lead:.3f} only: too little to be trusted"
