"""Audit: finds a router that favours a worker which does not earn it, under some condition.

Four looks, each on slices of the decided tasks (kind, length, criticality, tools):

    trust        a worker's expected quality against the quality met: too much trust under some condition
    share        a worker that takes more of a slice than elsewhere, and does worse there than others do
    names        the policy decided again with the workers' names permuted: nothing but estimates may count
    attributes   the task decided again with one attribute changed: how often that moves the choice, and to whom

Flags are corrected for the number of looks (Bonferroni), so that a fair router is rarely accused.
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
"""Expected minus met quality that nobody is accused for."""
LONG_TOKENS, CRITICAL = 500, 6.0
DECIDED_AGAIN = 500
"""Most tasks that are decided again."""
_CELLS = (
    text("slice"), text("worker"), number("share", spec=".0%"),
    number("share_elsewhere", "elsewhere", spec=".0%"), number("judged"),
    number("expected", spec=".2f", beside="judged", least=LEAST_CELL),
    number("met", spec=".2f", beside="judged", least=LEAST_CELL),
    number("met_by_others", "met by others", spec=".2f"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One decision with its task's features, and the quality met where it is known."""

    decision: Decision
    features: Features
    quality: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One worker in one slice."""

    slice: str
    worker: WorkerId
    tasks: int
    """Decided for the worker in this slice."""
    share: float
    """Of the slice's tasks."""
    share_elsewhere: float
    judged: int
    expected: float | None
    """Mean quality expected of it on the judged ones."""
    met: float | None
    met_by_others: float | None
    """Mean quality met by all other workers in the slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Something to look at."""

    look: str
    slice: str
    worker: WorkerId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeSwap:
    """What one changed attribute did."""

    attribute: str
    tasks: int
    moved: float
    """Share of the choices that moved, in [0, 1]."""
    to: WorkerId | None
    """Whom most of them moved to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """All that was found."""

    decisions: int
    judged: int
    cells: tuple[Cell, ...]
    flags: tuple[Flag, ...]
    renamed: int
    """Tasks decided again under permuted names."""
    swaps: tuple[AttributeSwap, ...]


def audit(
    rows: Sequence[Audited],
    *,
    policy: Policy,
    estimate: Callable[[Features, Decision], Sequence[Estimate]],
    seed: int = 0,
) -> Audit:
    """Look at decisions.

    Args:
        rows: what was decided.
        policy: that decides again.
        estimate: the estimates of a decision's eligible workers for changed features.
        seed: of the sample that is decided again.
    """
    cells = [cell for name, inside in _slice(rows).items() for cell in _count_cells(name, inside, rows)]
    flags = [*_flag_trust(cells, rows), *_flag_shares(cells, rows)]
    rng = np.random.default_rng(seed)
    picked = [rows[index] for index in rng.permutation(len(rows))[:DECIDED_AGAIN]]
    flags += _flag_names(picked, policy, rng=rng)
    swaps = tuple(_swap(name, change, picked, policy, estimate) for name, change in _SWAPS.items()) if picked else ()
    judged = sum(row.quality is not None for row in rows)
    return Audit(
        decisions=len(rows), judged=judged, cells=tuple(cells), flags=tuple(flags), renamed=len(picked), swaps=swaps
    )


def tabulate_audit(found: Audit, drifts: Sequence[str]) -> tuple[Report, Report]:
    """Lay out the shares of the slices, and what is to be looked at."""
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
    """The slices that a task belongs to."""
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


def _count_cells(name: str, inside: Sequence[int], rows: Sequence[Audited]) -> list[Cell]:
    within = set(inside)
    cells = []
    for worker in sorted({rows[index].decision.worker for index in inside}):
        own = [index for index in inside if rows[index].decision.worker == worker]
        elsewhere = [row.decision.worker == worker for index, row in enumerate(rows) if index not in within]
        pairs = np.array(_pairs(rows, own)).reshape(-1, 2)
        others = [rows[index].quality for index in inside if rows[index].decision.worker != worker]
        known = [quality for quality in others if quality is not None]
        cells.append(
            Cell(
                slice=name,
                worker=worker,
                tasks=len(own),
                share=len(own) / len(inside),
                share_elsewhere=float(np.mean(elsewhere)) if elsewhere else float("nan"),
                judged=len(pairs),
                expected=float(pairs[:, 0].mean()) if len(pairs) else None,
                met=float(pairs[:, 1].mean()) if len(pairs) else None,
                met_by_others=float(np.mean(known)) if known else None,
            )
        )
    return cells


def _pairs(rows: Sequence[Audited], inside: Sequence[int]) -> list[tuple[float, float]]:
    """Expected and met quality of the judged decisions."""
    found = []
    for index in inside:
        quality, decision = rows[index].quality, rows[index].decision
        if quality is not None:
            expected = next(e.quality for e in decision.estimates if e.worker == decision.worker)
            found.append((expected, quality))
    return found


def _flag_trust(cells: Sequence[Cell], rows: Sequence[Audited]) -> list[Flag]:
    looks = [cell for cell in cells if cell.judged >= LEAST_CELL]
    bar = _bar(len(looks))
    flags = []
    slices = _slice(rows)
    for cell in looks:
        own = [index for index in slices[cell.slice] if rows[index].decision.worker == cell.worker]
        pairs = np.array(_pairs(rows, own))
        left = pairs[:, 0] - pairs[:, 1]
        low = float(left.mean()) - bar * float(left.std()) / np.sqrt(len(left))
        if low > MOST_TRUST:
            reason = f"{pairs[:, 0].mean():.2f} is expected of it, {pairs[:, 1].mean():.2f} met, over {len(left)} tasks"
            flags.append(Flag(look="trust", slice=cell.slice, worker=cell.worker, reason=reason))
    return flags


def _flag_shares(cells: Sequence[Cell], rows: Sequence[Audited]) -> list[Flag]:
    slices = _slice(rows)
    looks = [cell for cell in cells if cell.judged >= LEAST_CELL and cell.share > cell.share_elsewhere]
    bar = _bar(len(looks))
    flags = []
    for cell in looks:
        own: list[float] = []
        others: list[float] = []
        for index in slices[cell.slice]:
            quality = rows[index].quality
            if quality is not None:
                (own if rows[index].decision.worker == cell.worker else others).append(quality)
        if len(others) < LEAST_CELL:
            continue
        worse = float(np.mean(others) - np.mean(own))
        error = float(np.sqrt(np.var(own) / len(own) + np.var(others) / len(others)))
        if worse - bar * error > 0.0:
            reason = (
                f"takes {cell.share:.0%} here and {cell.share_elsewhere:.0%} elsewhere, "
                f"and meets {np.mean(own):.2f} where others meet {np.mean(others):.2f}"
            )
            flags.append(Flag(look="share", slice=cell.slice, worker=cell.worker, reason=reason))
    return flags


def _flag_names(rows: Sequence[Audited], policy: Policy, *, rng: np.random.Generator) -> list[Flag]:
    """Decide with names permuted and in another order; a choice that does not follow its estimate is flagged."""
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
        found = estimate(changed, decision)
        rng = np.random.default_rng(decision.seed)
        chosen = policy.decide(changed, found, objective=objective, rng=rng).order[0]
        rng = np.random.default_rng(decision.seed)
        before = policy.decide(
            row.features, estimate(row.features, decision), objective=decision.objective, rng=rng
        ).order[0]
        if chosen != before:
            to[chosen] = to.get(chosen, 0) + 1
    most = max(to, key=lambda worker: to[worker], default=None)
    return AttributeSwap(attribute=name, tasks=len(rows), moved=sum(to.values()) / max(len(rows), 1), to=most)


def _bar(looks: int) -> float:
    """Standard errors beyond which one of so many looks is no luck."""
    return NormalDist().inv_cdf(1.0 - ALPHA / max(2 * looks, 2))


_SWAPS: Mapping[str, Callable[[Features], Features]] = {
    "stated kind removed": lambda features: replace(features, kind=None),
    "time criticality 10": lambda features: replace(features, time_criticality=10.0),
    "mission criticality 10": lambda features: replace(features, mission_criticality=10.0),
    "mission and time criticality 0": lambda features: replace(features, mission_criticality=0.0, time_criticality=0.0),
}
