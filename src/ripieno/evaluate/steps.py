"""Steps: who does a step of workflows, what comes of the whole, and which cheaper worker does as well there.

Whoever wrote the plan chose the worker: the shares are those met, not those of an experiment. A worker is called good
enough only where its interval leaves no room for more than a small loss.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ripieno.domain.report import Interval
from ripieno.evaluate.bootstrap import subtract_means, wilson
from ripieno.evaluate.observed import CHEAPER, INFERIOR, LEAST_EVIDENCE, Observed, mean_known


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUse:
    """One worker in one kind of step."""

    step: str
    worker: str
    runs: int
    judged: int
    cost_usd: float | None
    """Mean of its calls there; None where any of them is unknown."""
    accepted: Interval | None
    """Share of the judged runs that were accepted in the end; None where there is not enough evidence."""
    does_for: str | None = None
    """The dearer worker in whose place it does as well, where the evidence says so."""
    difference: Interval | None = None
    """In accepted runs, its own minus that worker's."""


def find_steps(rows: Sequence[Observed]) -> tuple[StepUse, ...]:
    """Every worker in every kind of step, and those that are good enough there; dearest first."""
    qualities: dict[tuple[str, str], list[float]] = defaultdict(list)
    costs: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    runs: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        used = {(call.step_kind, call.worker): call for call in row.calls if call.step_kind and call.failure is None}
        for place, call in used.items():
            runs[place] += 1
            costs[place].append(call.cost_usd)
            if row.quality is not None:
                qualities[place].append(row.quality)
    found = {
        place: StepUse(
            step=place[0],
            worker=place[1],
            runs=count,
            judged=len(qualities[place]),
            cost_usd=mean_known(costs[place]),
            accepted=wilson(qualities[place]) if len(qualities[place]) >= LEAST_EVIDENCE else None,
        )
        for place, count in runs.items()
    }
    compared = [
        (place, dearer)
        for place, use in found.items()
        for dearer, other in found.items()
        if place[0] == dearer[0] and use.accepted and other.accepted and _is_cheaper(use, other)
    ]
    for place, dearer in sorted(compared, key=lambda pair: found[pair[1]].cost_usd or 0.0):
        difference = subtract_means(qualities[place], qualities[dearer], tests=len(compared))
        if difference.low >= -INFERIOR:
            found[place] = replace(found[place], does_for=dearer[1], difference=difference)
    return tuple(sorted(found.values(), key=lambda use: (use.step, -_rank(use))))


def _is_cheaper(use: StepUse, other: StepUse) -> bool:
    """Whether both costs are known, and one is clearly lower."""
    return use.cost_usd is not None and other.cost_usd is not None and use.cost_usd < CHEAPER * other.cost_usd


def _rank(use: StepUse) -> float:
    """An unknown cost ranks as the highest."""
    return math.inf if use.cost_usd is None else use.cost_usd
