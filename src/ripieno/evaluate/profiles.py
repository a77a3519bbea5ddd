"""Profiles: one row a worker, of its own calls and answers in traffic."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ripieno.domain.report import Counted
from ripieno.evaluate.bootstrap import wilson
from ripieno.evaluate.observed import LEAST_EVIDENCE, Observed, mean_known

LENGTHS = (0, 1_000, 4_000, 16_000, 64_000)
"""Tokens from which on a task falls into the next range of lengths."""
_Call: TypeAlias = tuple[bool, float | None, float | None]
"""Whether it failed, its cost and its time."""
HEAVY = 0.5
"""Share of an answer that is changed from which on the correction is a heavy one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProfile:
    """What a worker did."""

    worker: str
    calls: int
    cost_usd: float | None
    """Mean of its answered calls; None where any of them is unknown."""
    latency_s: float | None
    """Median of its answered calls."""
    failed: Counted
    """Of its calls."""
    bad_tool_calls: Counted
    """Of its calls of tools: tools that were not offered, or arguments that do not fit."""
    accepted: tuple[Counted, ...]
    """Of its judged answers, by ranges of the task's length; see `LENGTHS`."""
    corrected: Counted
    """Of the answers that somebody corrected, those that were changed by half or more."""


def profile_workers(rows: Sequence[Observed]) -> tuple[WorkerProfile, ...]:
    """One row for every worker that was called, the busiest first."""
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
    """Which range of lengths a task falls into."""
    return max(place for place, least in enumerate(LENGTHS) if tokens >= least)


def name_range(place: int) -> str:
    """A range of lengths in words."""
    least = LENGTHS[place]
    if place + 1 == len(LENGTHS):
        return f"{least // 1000}k on"
    return f"under {LENGTHS[1] // 1000}k" if place == 0 else f"{least // 1000}k to {LENGTHS[place + 1] // 1000}k"


def _count(values: Sequence[float]) -> Counted:
    return Counted(count=len(values), share=wilson(values) if len(values) >= LEAST_EVIDENCE else None)
