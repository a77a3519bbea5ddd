"""Profiles: one row per worker, from its calls and answers in traffic."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ripieno.domain.report import Counted
from ripieno.evaluate.bootstrap import wilson
from ripieno.evaluate.observed import LEAST_EVIDENCE, Observed, mean_known

LENGTHS = (0, 1_000, 4_000, 16_000, 64_000)
"""Least tokens of each range of task lengths."""
_Call: TypeAlias = tuple[bool, float | None, float | None]
"""Whether it failed, its cost and its latency."""
HEAVY = 0.5
"""Changed share of an answer from which the correction counts as heavy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProfile:
    """Calls and answers of one worker."""

    worker: str
    calls: int
    cost_usd: float | None
    """Mean of its answered calls; None if any cost is unknown."""
    latency_s: float | None
    """Median of its answered calls."""
    failed: Counted
    """Of its calls."""
    bad_tool_calls: Counted
    """Of its tool calls: tools that were not offered, or arguments that do not fit."""
    accepted: tuple[Counted, ...]
    """Of its judged answers, by range of the task's length; see `LENGTHS`."""
    corrected: Counted
    """Of the corrected answers, those that were changed by `HEAVY` or more."""


def profile_workers(rows: Sequence[Observed]) -> tuple[WorkerProfile, ...]:
    """Make one row for every worker that was called, the busiest first."""
    calls: dict[str, list[_Call]] = defaultdict(list)
    answers: dict[str, list[Observed]] = defaultdict(list)
    for row in rows:
        for call in row.calls:
            calls[call.worker].append((call.failure is not None, call.cost_usd, call.latency_s))
        if row.author is not None:
            answers[row.author].append(row)
    found = [_profile(worker, mine, answers[worker]) for worker, mine in calls.items()]
    return tuple(sorted(found, key=lambda profile: -profile.calls))


def _profile(worker: str, calls: Sequence[_Call], answers: Sequence[Observed]) -> WorkerProfile:
    answered = [(cost, latency) for has_failed, cost, latency in calls if not has_failed]
    times = [latency for _, latency in answered if latency is not None]
    own = [row for row in answers if row.is_solo]
    ranges: list[list[float]] = [[] for _ in LENGTHS]
    for row in own:
        if row.quality is not None and row.input_tokens is not None:
            ranges[find_range(row.input_tokens)].append(row.quality)
    made, bad = sum(row.tool_calls for row in answers), sum(row.bad_tool_calls for row in answers)
    return WorkerProfile(
        worker=worker,
        calls=len(calls),
        cost_usd=mean_known([cost for cost, _ in answered]),
        latency_s=float(np.median(times)) if times else None,
        failed=_count([float(has_failed) for has_failed, _, _ in calls]),
        bad_tool_calls=_count([1.0] * bad + [0.0] * (made - bad)),
        accepted=tuple(_count(qualities) for qualities in ranges),
        corrected=_count([float(row.edited >= HEAVY) for row in own if row.edited is not None]),
    )


def find_range(tokens: int) -> int:
    """Find the range of lengths of a task."""
    return max(place for place, least in enumerate(LENGTHS) if tokens >= least)


def name_range(place: int) -> str:
    """Describe a range of lengths."""
    least = LENGTHS[place]
    if place + 1 == len(LENGTHS):
        return f"{least // 1000}k on"
    return f"under {LENGTHS[1] // 1000}k" if place == 0 else f"{least // 1000}k to {LENGTHS[place + 1] // 1000}k"


def _count(values: Sequence[float]) -> Counted:
    return Counted(count=len(values), share=wilson(values) if len(values) >= LEAST_EVIDENCE else None)
