"""Audit: finds workers that the router favours without a reason in their results.

It runs four tests, each on slices of the decided tasks (kind, length, criticality, tools):

    trust        expected quality of a worker against its judged quality: too high in some slice
    share        a worker that gets more of a slice than elsewhere, and does worse there than the others
    names        decisions repeated with permuted names of the workers: only estimates may count
    attributes   decisions repeated with one attribute changed: how often the choice changes, and to which worker

Flags are corrected for the number of tests (Bonferroni), so that a fair router rarely gets one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from ripieno.domain import Decision, Estimate, Features, WorkerId
from ripieno.domain.report import Evidence, Report, number, text
from ripieno.route import Policy

ALPHA = 0.05
LEAST_CELL = 30
MOST_TRUST = 0.05
"""The audit does not flag calibration gaps below this."""
LONG_TOKENS, CRITICAL = 500, 6.0
DECIDED_AGAIN = 500
"""Most decisions that are repeated."""
_CELLS = (
    text("slice"), text("worker"), number("share", spec=".0%"),
    number("share_elsewhere", "elsewhere", spec=".0%"), number("judged"),
    number("expected", spec=".2f", beside="judged", least=LEAST_CELL),
    number("met", spec=".2f", beside="judged", least=LEAST_CELL),
    number("met_by_others", "met by others", spec=".2f"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One decision with the features of its task, and its judged quality if there is one."""

    decision: Decision
    features: Features
    quality: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One worker in one slice."""

    slice: str
    worker: WorkerId
    tasks: int
    """Tasks of this slice that the worker got."""
    share: float
    """Of the slice's tasks."""
    share_elsewhere: float
    judged: int
    expected: float | None
    """Mean expected quality on its judged tasks."""
    met: float | None
    met_by_others: float | None
    """Mean judged quality of all other workers in the slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One suspicion, for a human to check."""

    look: str
    slice: str
    worker: WorkerId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeSwap:
    """Effect of one changed attribute."""

    attribute: str
    tasks: int
    moved: float
    """Share of the choices that changed, in [0, 1]."""
    to: WorkerId | None
    """Worker that most of them changed to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Result of an audit."""

    decisions: int
    judged: int
    cells: tuple[Cell, ...]
    flags: tuple[Flag, ...]
    renamed: int
    """Decisions that were repeated under permuted names."""
    swaps: tuple[AttributeSwap, ...]


def audit(
    rows: Sequence[Audited],
    *,
    policy: Policy,
    estimate: Callable[[Features, Decision], Sequence[Estimate]],
) -> Audit:
    """Audit some decisions.

    `estimate` returns the estimates of a decision's eligible workers for changed features.
    """
    counted = [pair for name, inside in _slice(rows).items() for pair in _count_cells(name, inside, rows)]
    cells = [cell for cell, _ in counted]
    flags = [*_flag_trust(counted), *_flag_shares(counted)]
    rng = np.random.default_rng(0)
    picked = [rows[index] for index in rng.permutation(len(rows))[:DECIDED_AGAIN]]
    flags += _flag_names(picked, policy, rng=rng)
    swaps = tuple(_swap(name, change, picked, policy, estimate) for name, change in _SWAPS.items()) if picked else ()
    judged = sum(row.quality is not None for row in rows)
    return Audit(
        decisions=len(rows), judged=judged, cells=tuple(cells), flags=tuple(flags), renamed=len(picked), swaps=swaps
    )


def tabulate_audit(found: Audit, drifts: Sequence[str]) -> tuple[Report, Report]:
    """Lay out the shares of the slices, and the findings."""
    evidence = Evidence(n=found.judged, least=LEAST_CELL)
    fair = "no worker is favoured beyond what it earns"
    notes = (
        *(f"drift: {drift}" for drift in drifts or ("no change of a worker was noticed",)),
        *(f"FLAG ({flag.look}): {flag.worker} on {flag.slice}: {flag.reason}" for flag in found.flags),
        *(
            f"{swap.attribute}: {swap.moved:.0%} of {swap.tasks} choices move"
            + (f", most to {swap.to}" * bool(swap.to))
            for swap in found.swaps
        ),
        *([] if found.flags else [f"{fair}: {evidence.shortage}" if evidence.shortage else fair]),
    )
    title = f"{found.decisions} decisions, {found.judged} judged"
    return Report(title=title, columns=_CELLS, rows=found.cells), Report(title="findings", notes=notes)


def name_slices(features: Features) -> tuple[str, ...]:
    """Name the slices that a task belongs to."""
    named = [
        "all tasks",
        f"kind {features.kind or 'not stated'}",
        "long" if features.prompt_tokens >= LONG_TOKENS else "short",
        "mission critical" if features.mission_criticality >= CRITICAL else "not mission critical",
        "time critical" if features.time_criticality >= CRITICAL else "not time critical",
    ]
    if features.tools:
        named.append("with tools")
    if features.kind and features.time_criticality >= CRITICAL:
        named.append(f"kind {features.kind}, time critical")
    if features.kind and features.mission_criticality >= CRITICAL:
        named.append(f"kind {features.kind}, mission critical")
    return tuple(named)


def _slice(rows: Sequence[Audited]) -> dict[str, list[int]]:
    slices: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        for name in name_slices(row.features):
            slices.setdefault(name, []).append(index)
    return {name: inside for name, inside in slices.items() if len(inside) >= LEAST_CELL}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Qualities:
    """Qualities of the judged tasks of one slice."""

    expected: np.ndarray
    """Expected quality of the worker on its own tasks."""
    own: np.ndarray
    others: np.ndarray


def _count_cells(name: str, inside: Sequence[int], rows: Sequence[Audited]) -> list[tuple[Cell, _Qualities]]:
    workers = np.array([row.decision.worker for row in rows])
    within = np.isin(np.arange(len(rows)), inside)
    quality = np.array([np.nan if row.quality is None else row.quality for row in rows])
    known = within & ~np.isnan(quality)
    cells = []
    for worker in sorted({rows[index].decision.worker for index in inside}):
        is_own = workers == worker
        own = [rows[index].decision for index in np.flatnonzero(known & is_own).tolist()]
        expected = [next(e.quality for e in decision.estimates if e.worker == worker) for decision in own]
        judged = _Qualities(expected=np.array(expected), own=quality[known & is_own], others=quality[known & ~is_own])
        cell = Cell(
            slice=name,
            worker=worker,
            tasks=int((within & is_own).sum()),
            share=float(is_own[within].mean()),
            share_elsewhere=float(is_own[~within].mean()) if not within.all() else float("nan"),
            judged=len(own),
            expected=_mean(judged.expected),
            met=_mean(judged.own),
            met_by_others=_mean(judged.others),
        )
        cells.append((cell, judged))
    return cells


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _flag_trust(counted: Sequence[tuple[Cell, _Qualities]]) -> list[Flag]:
    looks = [(cell, judged) for cell, judged in counted if cell.judged >= LEAST_CELL]
    bar = _bar(len(looks))
    flags = []
    for cell, judged in looks:
        gaps = judged.expected - judged.own
        if float(gaps.mean()) - bar * float(gaps.std()) / np.sqrt(len(gaps)) > MOST_TRUST:
            reason = f"{cell.expected:.2f} is expected of it, {cell.met:.2f} met, over {len(gaps)} tasks"
            flags.append(Flag(look="trust", slice=cell.slice, worker=cell.worker, reason=reason))
    return flags


def _flag_shares(counted: Sequence[tuple[Cell, _Qualities]]) -> list[Flag]:
    looks = [each for each in counted if each[0].judged >= LEAST_CELL and each[0].share > each[0].share_elsewhere]
    bar = _bar(len(looks))
    flags = []
    for cell, judged in looks:
        own, others = judged.own, judged.others
        if len(others) < LEAST_CELL:
            continue
        error = float(np.sqrt(own.var() / len(own) + others.var() / len(others)))
        if float(others.mean() - own.mean()) - bar * error > 0.0:
            reason = (
                f"takes {cell.share:.0%} here and {cell.share_elsewhere:.0%} elsewhere, "
                f"and meets {cell.met:.2f} where others meet {cell.met_by_others:.2f}"
            )
            flags.append(Flag(look="share", slice=cell.slice, worker=cell.worker, reason=reason))
    return flags


def _flag_names(rows: Sequence[Audited], policy: Policy, *, rng: np.random.Generator) -> list[Flag]:
    """Repeat decisions with permuted names and order. Flag choices that do not follow the estimates."""
    moved: dict[tuple[str, WorkerId], int] = {}
    for row in rows:
        estimates, decision = row.decision.estimates, row.decision
        shuffled = [estimates[index] for index in rng.permutation(len(estimates))]
        renamed = [replace(e, worker=other.worker) for e, other in zip(estimates, shuffled, strict=True)]
        choices = [
            policy.decide(
                row.features, shown, objective=decision.objective, rng=np.random.default_rng(decision.seed)
            ).order[0]
            for shown in (estimates, renamed)
        ]
        first = next(index for index, e in enumerate(estimates) if e.worker == choices[0])
        second = next(index for index, e in enumerate(renamed) if e.worker == choices[1])
        if first != second and not _is_tie(estimates[first], estimates[second]):
            for name in name_slices(row.features):
                moved[name, choices[1]] = moved.get((name, choices[1]), 0) + 1
    most = max(moved.values(), default=0)
    reason = "it is chosen for its name: the choice stays with it when others carry its estimates"
    return [
        Flag(look="names", slice=name, worker=worker, reason=f"{reason} ({count} of {len(rows)} tasks)")
        for (name, worker), count in moved.items()
        if count >= max(most / 2, 3)
    ]


def _is_tie(first: Estimate, second: Estimate) -> bool:
    return replace(first, worker=second.worker) == second


def _swap(
    name: str,
    change: Callable[[Features], Features],
    rows: Sequence[Audited],
    policy: Policy,
    estimate: Callable[[Features, Decision], Sequence[Estimate]],
) -> AttributeSwap:
    to: dict[WorkerId, int] = {}
    for row in rows:
        changed, decision = change(row.features), row.decision
        objective = replace(
            decision.objective,
            mission_criticality=changed.mission_criticality,
            time_criticality=changed.time_criticality,
        )
        before, chosen = (
            policy.decide(
                features, estimate(features, decision), objective=wanted, rng=np.random.default_rng(decision.seed)
            ).order[0]
            for features, wanted in ((row.features, decision.objective), (changed, objective))
        )
        if chosen != before:
            to[chosen] = to.get(chosen, 0) + 1
    most = max(to, key=lambda worker: to[worker], default=None)
    return AttributeSwap(attribute=name, tasks=len(rows), moved=sum(to.values()) / max(len(rows), 1), to=most)


def _bar(looks: int) -> float:
    """Return the standard errors that are significant among this many tests."""
    return NormalDist().inv_cdf(1.0 - ALPHA / max(2 * looks, 2))


_SWAPS: Mapping[str, Callable[[Features], Features]] = {
    "stated kind removed": lambda features: replace(features, kind=None),
    "time criticality 10": lambda features: replace(features, time_criticality=10.0),
    "mission criticality 10": lambda features: replace(features, mission_criticality=10.0),
    "mission and time criticality 0": lambda features: replace(features, mission_criticality=0.0, time_criticality=0.0),
}
