"""Explanations of recorded decisions: masks, utilities, and changes that would change the choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain import Decision, Estimate, Standing, WorkerId
from ripieno.route.choose import DecisionRule, choose, gather_estimates

DIALS = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One eligible worker of a decision."""

    estimate: Estimate
    utility: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The rule's result at another setting of the dial, all else equal, without exploration."""

    dial: float
    leader: WorkerId
    utilities: Mapping[WorkerId, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range of the dial in which one worker leads."""

    low: float
    high: float
    worker: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The content of `ripieno explain`."""

    decision: Decision
    scored: tuple[Scored, ...]
    """Eligible workers, highest utility first."""
    spans: tuple[Span, ...]
    """The leader at each setting of the dial, all else equal."""
    changes: tuple[str, ...]
    """Changes that would change the choice, in words."""


def explain(decision: Decision) -> Explanation:
    """Explain a decision from its own record alone."""
    if not decision.estimates:
        changes = ("another worker, or `auto`, as the model of the request",)
        return Explanation(decision=decision, scored=(), spans=(), changes=changes)
    utilities, has_ladder = decision.utilities, DecisionRule.read(decision.policy_facts).has_ladder
    free = [e for e in decision.estimates if e.standing == Standing.FREE] if has_ladder else []
    scored = sorted(
        (Scored(estimate=e, utility=utilities[e.worker]) for e in free or decision.estimates),
        key=lambda item: item.utility,
        reverse=True,
    )
    spans = find_spans(decision)
    found = _find_changes(decision, scored, spans)
    return Explanation(decision=decision, scored=tuple(scored), spans=spans, changes=found)


def find_spans(decision: Decision) -> tuple[Span, ...]:
    """Find the leader at each setting of the dial from 0 to 1."""
    spans: list[Span] = []
    for dial in np.linspace(0.0, 1.0, DIALS).round(2).tolist():
        leader = turn_dial(decision, dial).leader
        if spans and spans[-1].worker == leader:
            spans[-1] = replace(spans[-1], high=dial)
        else:
            spans.append(Span(low=dial, high=dial, worker=leader))
    return tuple(spans)


def turn_dial(decision: Decision, dial: float) -> WhatIf:
    """Choose again from the recorded estimates at another setting of the dial."""
    workers, rule = [e.worker for e in decision.estimates], DecisionRule.read(decision.policy_facts)
    objective = replace(decision.objective, preference=dial)
    found = choose(gather_estimates(decision.estimates), objective, rule)
    utilities = dict(zip(workers, found.utility[0].tolist(), strict=True))
    return WhatIf(dial=dial, leader=workers[int(found.leader[0])], utilities=utilities)


def _find_changes(decision: Decision, scored: Sequence[Scored], spans: Sequence[Span]) -> tuple[str, ...]:
    chosen = decision.worker
    changes = [
        f"a dial between {span.low:.2f} and {span.high:.2f} would choose {span.worker}"
        for span in spans
        if span.worker != chosen
    ]
    rival = next((item.estimate for item in scored if item.estimate.worker != chosen), None)
    if rival is not None:
        needed = _quality_needed(rival, decision)
        if needed is not None and needed > rival.quality:
            changes.append(
                f"{rival.worker} would be chosen at an expected quality of {needed:.2f} (now {rival.quality:.2f})"
            )
    changes.extend(f"{worker} is masked ({why.reason}): {why.detail}" for worker, why in decision.mask.masked.items())
    return tuple(changes)


def _quality_needed(rival: Estimate, decision: Decision) -> float | None:
    """Find the lowest quality at which a worker would lead; None if it never would."""

    def leads(quality: float) -> bool:
        raised = [replace(e, quality=quality) if e.worker == rival.worker else e for e in decision.estimates]
        again = replace(decision, estimates=tuple(raised))
        return turn_dial(again, decision.objective.preference).leader == rival.worker

    low, high = 0.0, 1.0
    if not leads(1.0):
        return None
    for _ in range(20):
        middle = (low + high) / 2.0
        low, high = (low, middle) if leads(middle) else (middle, high)
    return high
