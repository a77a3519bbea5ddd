"""Steps of workflows: which worker does each kind of step, and which cheaper worker is as good there.

The author of each plan chose the worker, so the shares are observed, and no experiment. A worker counts as good enough
only if its interval excludes more than a small loss.
"""

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
    """Mean of its calls there; None if any cost is unknown."""
    accepted: Interval | None
    """Share of the judged runs that were accepted; None if there is not enough evidence."""
    does_for: str | None = None
    """The more expensive worker that it can replace, if the evidence says so."""
    difference: Interval | None = None
    """Its share of accepted runs minus that worker's."""


def find_steps(rows: Sequence[Observed]) -> tuple[StepUse, ...]:
    """List every worker in every kind of step, the most expensive first, with the workers it can replace."""
    qualities: dict[tuple[str, str], list[float]] = defaultdict(list)
    costs: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    runs: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        used = {
            (row.step_kinds[call.step], str(call.worker)): call
            for call in row.calls
            if row.step_kinds.get(call.step) and call.failure is None
        }
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
    return tuple(sorted(found.values(), key=lambda use: (use.step, use.cost_usd is not None, -(use.cost_usd or 0.0))))


def _is_cheaper(use: StepUse, other: StepUse) -> bool:
    """Return whether both costs are known, and the first is clearly lower."""
    return use.cost_usd is not None and other.cost_usd is not None and use.cost_usd < CHEAPER * other.cost_usd
