"""A recorded decision in words: who was masked, who was scored how, and what would change it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain import Decision, Estimate, Objective, WorkerId
from ripieno.route.utility import Scales, score_utility

DIALS = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One eligible worker of a decision."""

    estimate: Estimate
    utility: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range of the dial in which one worker leads."""

    low: float
    high: float
    worker: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What `ripieno explain` shows."""

    decision: Decision
    scored: tuple[Scored, ...]
    """Eligible workers, highest utility first."""
    spans: tuple[Span, ...]
    """Who would lead at each setting of the dial, all else equal."""
    changes: tuple[str, ...]
    """What would change the choice, in sentences."""


def explain(decision: Decision) -> Explanation:
    """Explain a decision from its own record; nothing is looked up elsewhere."""
    scales = read_scales(decision)
    utilities = decision.utilities
    scored = sorted(
        (Scored(estimate=e, utility=utilities[e.worker]) for e in decision.estimates),
        key=lambda item: item.utility,
        reverse=True,
    )
    spans = find_spans(decision.estimates, decision.objective, scales)
    return Explanation(
        decision=decision, scored=tuple(scored), spans=spans, changes=_find_changes(decision, scored, spans, scales)
    )


def find_spans(estimates: Sequence[Estimate], objective: Objective, scales: Scales) -> tuple[Span, ...]:
    """Turn the dial from 0 to 1 and see who leads."""
    spans: list[Span] = []
    for dial in np.linspace(0.0, 1.0, DIALS).round(2).tolist():
        turned = replace(objective, preference=dial)
        leader = max(estimates, key=lambda e: score_utility(e, turned, scales)).worker
        if spans and spans[-1].worker == leader:
            spans[-1] = replace(spans[-1], high=dial)
        else:
            spans.append(Span(low=dial, high=dial, worker=leader))
    return tuple(spans)


def read_scales(decision: Decision) -> Scales:
    """The scales that the decision was made with."""
    facts = decision.policy_facts
    cost, latency = facts.get("reference_cost_usd"), facts.get("reference_latency_s")
    default = Scales()
    return Scales(
        cost_usd=cost if isinstance(cost, float) else default.cost_usd,
        latency_s=latency if isinstance(latency, float) else default.latency_s,
    )


def _find_changes(
    decision: Decision, scored: Sequence[Scored], spans: Sequence[Span], scales: Scales
) -> tuple[str, ...]:
    chosen = decision.worker
    changes = [
        f"the dial between {span.low:.2f} and {span.high:.2f} would take {span.worker}"
        for span in spans
        if span.worker != chosen
    ]
    rival = next((item for item in scored if item.estimate.worker != chosen), None)
    mine = next(item for item in scored if item.estimate.worker == chosen)
    if rival is not None:
        needed = _quality_needed(rival.estimate, mine.utility, decision.objective, scales)
        if needed is not None and needed > rival.estimate.quality:
            changes.append(
                f"{rival.estimate.worker} would be taken from an expected quality of {needed:.2f} on "
                f"(now {rival.estimate.quality:.2f})"
            )
    changes.extend(f"{worker} is masked ({why.reason}): {why.detail}" for worker, why in decision.mask.masked.items())
    return tuple(changes)


def _quality_needed(estimate: Estimate, target: float, objective: Objective, scales: Scales) -> float | None:
    """Least quality at which an estimate reaches a utility; None where none does."""
    low, high = 0.0, 1.0
    if score_utility(replace(estimate, quality=1.0), objective, scales) < target:
        return None
    for _ in range(40):
        middle = (low + high) / 2.0
        if score_utility(replace(estimate, quality=middle), objective, scales) < target:
            low = middle
        else:
            high = middle
    return high
