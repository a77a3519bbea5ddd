"""A recorded decision in words: who was masked, who was scored how, and what would change it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain import Decision, Estimate, Objective, Standing, WorkerId
from ripieno.route.utility import Scales, find_leader

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
class Terms:
    """What a utility was weighed with."""

    scales: Scales
    margin: float


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
    if not decision.estimates:
        changes = ("another worker, or `auto`, as the model of the request",)
        return Explanation(decision=decision, scored=(), spans=(), changes=changes)
    terms = read_terms(decision)
    utilities = decision.utilities
    free = [e for e in decision.estimates if e.standing == Standing.FREE]
    if free and decision.policy_facts.get("has_ladder", True):
        decision = replace(decision, estimates=tuple(free))
    scored = sorted(
        (Scored(estimate=e, utility=utilities[e.worker]) for e in decision.estimates),
        key=lambda item: item.utility,
        reverse=True,
    )
    spans = find_spans(decision.estimates, decision.objective, terms)
    return Explanation(
        decision=decision, scored=tuple(scored), spans=spans, changes=_find_changes(decision, scored, spans, terms)
    )


def find_spans(estimates: Sequence[Estimate], objective: Objective, terms: Terms) -> tuple[Span, ...]:
    """Turn the dial from 0 to 1 and see who leads."""
    spans: list[Span] = []
    for dial in np.linspace(0.0, 1.0, DIALS).round(2).tolist():
        turned = replace(objective, preference=dial)
        leader = find_leader(estimates, turned, terms.scales, margin=terms.margin)
        if spans and spans[-1].worker == leader:
            spans[-1] = replace(spans[-1], high=dial)
        else:
            spans.append(Span(low=dial, high=dial, worker=leader))
    return tuple(spans)


def read_terms(decision: Decision) -> Terms:
    """The scales and the margin that the decision was made with."""
    facts = decision.policy_facts
    cost, latency, margin = (facts.get(name) for name in ("reference_cost_usd", "reference_latency_s", "margin"))
    default = Scales()
    scales = Scales(
        cost_usd=cost if isinstance(cost, float) else default.cost_usd,
        latency_s=latency if isinstance(latency, float) else default.latency_s,
    )
    return Terms(scales=scales, margin=margin if isinstance(margin, float) else 0.0)


def _find_changes(decision: Decision, scored: Sequence[Scored], spans: Sequence[Span], terms: Terms) -> tuple[str, ...]:
    chosen = decision.worker
    changes = [
        f"the dial between {span.low:.2f} and {span.high:.2f} would take {span.worker}"
        for span in spans
        if span.worker != chosen
    ]
    rival = next((item.estimate for item in scored if item.estimate.worker != chosen), None)
    if rival is not None:
        needed = _quality_needed(rival, decision, terms)
        if needed is not None and needed > rival.quality:
            changes.append(
                f"{rival.worker} would be taken from an expected quality of {needed:.2f} on (now {rival.quality:.2f})"
            )
    changes.extend(f"{worker} is masked ({why.reason}): {why.detail}" for worker, why in decision.mask.masked.items())
    return tuple(changes)


def _quality_needed(rival: Estimate, decision: Decision, terms: Terms) -> float | None:
    """Least quality at which a worker would lead; None where none does."""

    def leads(quality: float) -> bool:
        raised = [replace(e, quality=quality) if e.worker == rival.worker else e for e in decision.estimates]
        return find_leader(raised, decision.objective, terms.scales, margin=terms.margin) == rival.worker

    low, high = 0.0, 1.0
    if not leads(1.0):
        return None
    for _ in range(20):
        middle = (low + high) / 2.0
        low, high = (low, middle) if leads(middle) else (middle, high)
    return high
