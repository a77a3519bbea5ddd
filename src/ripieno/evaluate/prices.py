"""Prices: cost and quality of workers on the same tasks."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ripieno.domain import Outcome
from ripieno.domain.report import Interval
from ripieno.evaluate.bootstrap import bootstrap_mean
from ripieno.evaluate.observed import LEAST_EVIDENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """One worker compared with the best worker, on the tasks that both were measured on."""

    worker: str
    beside: str
    tasks: int
    cost_usd: float | None
    """Mean of the worker on those tasks; None if it is unknown."""
    other_cost_usd: float | None
    difference: Interval | None
    """Quality of the worker minus that of the other, paired; None if there is not enough evidence."""


def compare_prices(outcomes: Iterable[Outcome]) -> tuple[PriceRow, ...]:
    """Compare every measured worker with the best one, the cheapest first. Repeats of a pair are averaged."""
    quality: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    cost: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        quality[outcome.worker][outcome.task].append(outcome.quality)
        if outcome.cost_usd is not None:
            cost[outcome.worker][outcome.task].append(outcome.cost_usd)
    if len(quality) < 2:
        return ()
    most = max(len(tasks) for tasks in quality.values())
    known = [worker for worker, tasks in quality.items() if len(tasks) >= most / 2]
    best = max(known, key=lambda worker: _mean([np.mean(values) for values in quality[worker].values()]) or 0.0)
    rows = [_compare(worker, best, quality, cost) for worker in quality if worker != best]
    return tuple(sorted(rows, key=lambda row: float("inf") if row.cost_usd is None else row.cost_usd))


def _compare(
    worker: str,
    best: str,
    quality: dict[str, dict[str, list[float]]],
    cost: dict[str, dict[str, list[float]]],
) -> PriceRow:
    shared = sorted(set(quality[worker]) & set(quality[best]))
    gains = np.array([np.mean(quality[worker][task]) - np.mean(quality[best][task]) for task in shared])
    enough = len(shared) >= LEAST_EVIDENCE
    return PriceRow(
        worker=worker,
        beside=best,
        tasks=len(shared),
        cost_usd=_mean([np.mean(cost[worker][task]) for task in shared if task in cost[worker]]),
        other_cost_usd=_mean([np.mean(cost[best][task]) for task in shared if task in cost[best]]),
        difference=bootstrap_mean(gains, rng=np.random.default_rng(0)) if enough else None,
    )


def _mean(values: "list[np.floating]") -> float | None:
    return float(np.mean(values)) if values else None
