"""Questions that change a routing table, answered from what was decided and what came of it.

Each answer has its evidence beside it; below a threshold it is "not enough evidence", and nothing is ranked.

Source:
    Dudik et al. (2011), Doubly robust policy evaluation; Wilson (1927), Probable inference.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ripieno.domain import Outcome
from ripieno.evaluate.bootstrap import Interval, subtract_means, wilson
from ripieno.evaluate.observed import CHEAPER, INFERIOR, LEAST_EVIDENCE, Observed
from ripieno.evaluate.offpolicy import CAP, NORMAL_95
from ripieno.evaluate.prices import PriceRow, compare_prices
from ripieno.evaluate.profiles import Profile, profile_workers
from ripieno.evaluate.steps import StepUse, find_steps

LEAST_EDGES = 20
"""Failures that went on to the same worker, below which the edge is not ranked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What one kind, key or worker took, and what came of it."""

    name: str
    runs: int
    tokens: int
    cost_usd: float
    wasted: float
    """Share of its tokens that went into failed calls and rejected answers."""
    accepted: Interval | None
    """Share of judged answers that were accepted; None below the threshold."""
    judged: int
    tokens_per_accepted: float | None
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A worker that could be replaced by a cheaper one on a kind of task."""

    kind: str
    worker: str
    cheaper: str
    difference: Interval
    """In accepted answers, the cheaper one's minus the worker's."""
    saved_usd: float
    """On what the worker was given in these decisions."""
    evidence: float
    """Judged outcomes that the weighted ones are worth."""
    private_tokens: int = 0
    """Of private tasks, which would not leave any more; for local workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What a fallback is worth: who went on after whose failure."""

    failed: str
    failure: str
    then: str
    count: int
    answered: int
    accepted: Interval | None
    """Share of judged runs on this edge that were accepted; None below the threshold."""
    false: int
    """Answers that were given and then rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFault:
    """A tool whose failures end runs."""

    tool: str
    faults: int
    calls: int
    harm: Interval
    """Share of accepted runs without its failures minus the share with them."""
    tokens: int
    """Of the runs in which it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All questions, answered as far as the evidence goes."""

    decisions: int
    judged: int
    kinds: tuple[Spend, ...]
    keys: tuple[Spend, ...]
    projects: tuple[Spend, ...]
    workers: tuple[Spend, ...]
    profiles: tuple[Profile, ...]
    steps: tuple[StepUse, ...]
    overqualified: tuple[Swap, ...]
    fallbacks: tuple[Edge, ...]
    tools: tuple[ToolFault, ...]
    local: tuple[Swap, ...]
    prices: tuple[PriceRow, ...] = ()
    """Of measured workers on the same tasks."""
    thin: Mapping[str, str] = field(default_factory=dict)
    """Questions for which there is not enough evidence, with how much there is."""


def answer(rows: Sequence[Observed], *, local: Iterable[str] = (), outcomes: Iterable[Outcome] = ()) -> Answers:
    """Answer all questions.

    Args:
        rows: decisions with what came of them.
        local: workers that run on this machine.
        outcomes: measured ones, of several workers on the same tasks.
    """
    judged = sum(row.quality is not None for row in rows)
    here = set(local)
    swaps = find_swaps(rows)
    overqualified = tuple(swap for swap in swaps if swap.cheaper not in here or swap.worker in here)
    moves = tuple(swap for swap in swaps if swap.cheaper in here and swap.worker not in here)
    edges, tools = find_edges(rows), find_tool_faults(rows)
    said = {"overqualified": overqualified, "fallbacks": edges, "tools": tools, "local": moves}
    thin = f"not enough evidence: {judged} of {LEAST_EVIDENCE} judged"
    return Answers(
        decisions=len(rows),
        judged=judged,
        kinds=sum_up(rows, lambda row: row.kind),
        keys=sum_up(rows, lambda row: row.key or "none"),
        projects=sum_up(rows, lambda row: row.project or "none"),
        workers=sum_up(rows, lambda row: row.worker),
        profiles=profile_workers(rows),
        steps=find_steps(rows),
        overqualified=overqualified,
        fallbacks=edges,
        tools=tools,
        local=moves,
        prices=compare_prices(outcomes),
        thin={name: thin for name, listed in said.items() if not listed and judged < LEAST_EVIDENCE},
    )


def sum_up(rows: Sequence[Observed], name: Callable[[Observed], str]) -> tuple[Spend, ...]:
    """What each group took, the dearest first."""
    groups: dict[str, list[Observed]] = defaultdict(list)
    for row in rows:
        groups[name(row)].append(row)
    found = [_sum_one(group, mine) for group, mine in groups.items()]
    return tuple(sorted(found, key=lambda spend: -spend.tokens))


def find_swaps(rows: Sequence[Observed]) -> tuple[Swap, ...]:
    """Workers that a cheaper one could replace on a kind of task: doubly robust, and never worse by more than a little.

    Non-inferior: the lower end of the 95 % interval is above `-INFERIOR`, on evidence worth `LEAST_EVIDENCE` outcomes.
    """
    kinds: dict[str, list[Observed]] = defaultdict(list)
    for row in rows:
        if row.quality is not None and row.is_realised:
            kinds[row.kind].append(row)
    prices = _find_prices(rows)
    pairs = [
        (kind, worker, cheaper)
        for kind, mine in kinds.items()
        for worker in sorted({row.worker for row in mine})
        for cheaper in sorted({name for row in mine for name in row.expected} - {worker})
        if _is_cheaper(prices.get((kind, cheaper)), prices.get((kind, worker)))
    ]
    found = [_compare(kind, worker, cheaper, kinds[kind]) for kind, worker, cheaper in pairs]
    swaps = [swap for swap in found if swap is not None]
    best: dict[tuple[str, str], Swap] = {}
    for swap in sorted(swaps, key=lambda each: prices[each.kind, each.cheaper][0]):
        best.setdefault((swap.kind, swap.worker), swap)
    saved = {place: _tell_saving(swap, rows, prices) for place, swap in best.items()}
    return tuple(sorted(saved.values(), key=lambda swap: -swap.saved_usd))


def find_edges(rows: Sequence[Observed]) -> tuple[Edge, ...]:
    """Who goes on after whose failure, by the share of answers that were accepted in the end."""
    edges: dict[tuple[str, str, str], list[Observed]] = defaultdict(list)
    for row in rows:
        for call, then in zip(row.calls, row.calls[1:], strict=False):
            if call.failure is not None and call.step == then.step:
                edges[call.worker, call.failure, then.worker].append(row)
    found = []
    for (failed, failure, next_), mine in edges.items():
        if len(mine) < LEAST_EDGES:
            continue
        qualities = [row.quality for row in mine if row.quality is not None]
        answered = [row for row in mine if row.calls[-1].failure is None]
        false = sum(row.quality is not None and row.quality < 0.5 for row in answered)
        accepted = wilson(qualities) if len(qualities) >= LEAST_EDGES else None
        found.append(
            Edge(
                failed=failed,
                failure=failure,
                then=next_,
                count=len(mine),
                answered=len(answered),
                accepted=accepted,
                false=false,
            )
        )
    return tuple(sorted(found, key=lambda edge: -(edge.accepted.low if edge.accepted is not None else -1.0)))


def find_tool_faults(rows: Sequence[Observed]) -> tuple[ToolFault, ...]:
    """Tools after whose failures fewer runs are accepted, the most harmful first."""
    judged = [row for row in rows if row.quality is not None]
    tools = sorted({tool for row in judged for tool in row.tools})
    found = []
    for tool in tools:
        using = [row for row in judged if tool in row.tools]
        failed = np.array([float(row.quality or 0.0) for row in using if tool in row.faults])
        fine = np.array([float(row.quality or 0.0) for row in using if tool not in row.faults])
        if len(failed) < LEAST_EDGES or len(fine) < LEAST_EDGES:
            continue
        harm = subtract_means(fine, failed, tests=len(tools))
        if harm.low > 0.0:
            tokens = sum(row.tokens for row in using if tool in row.faults)
            found.append(ToolFault(tool=tool, faults=len(failed), calls=len(using), harm=harm, tokens=tokens))
    return tuple(sorted(found, key=lambda fault: -fault.harm.mean * fault.faults))


def _sum_one(name: str, rows: Sequence[Observed]) -> Spend:
    tokens = sum(row.tokens for row in rows)
    qualities = [row.quality for row in rows if row.quality is not None]
    rejected = sum(row.tokens for row in rows if row.quality is not None and row.quality < 0.5)
    failed = sum(call.tokens for row in rows for call in row.calls if call.failure is not None)
    judged_tokens = sum(row.tokens for row in rows if row.quality is not None)
    accepted = sum(quality >= 0.5 for quality in qualities)
    return Spend(
        name=name,
        runs=len(rows),
        tokens=tokens,
        cost_usd=sum(row.cost_usd for row in rows),
        wasted=min((failed + rejected) / tokens, 1.0) if tokens else 0.0,
        accepted=wilson(qualities) if len(qualities) >= LEAST_EVIDENCE else None,
        judged=len(qualities),
        tokens_per_accepted=judged_tokens / accepted if accepted else None,
        latency_s=float(np.median([row.latency_s for row in rows])),
    )


def _find_prices(rows: Sequence[Observed]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Mean price of a worker's answers by kind, with its interval."""
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.is_realised:
            costs[row.kind, row.worker].append(row.calls[-1].cost_usd)
    prices = {}
    for place, values in costs.items():
        listed = np.array(values)
        half = NORMAL_95 * float(listed.std()) / np.sqrt(len(listed))
        prices[place] = (float(listed.mean()), float(listed.mean() - half), float(listed.mean() + half))
    return prices


def _is_cheaper(one: tuple[float, float, float] | None, other: tuple[float, float, float] | None) -> bool:
    return one is not None and other is not None and one[2] < CHEAPER * other[1]


def _compare(kind: str, worker: str, cheaper: str, rows: Sequence[Observed]) -> Swap | None:
    """The cheaper worker's value minus the other's, where there is evidence and it is hardly worse."""
    able = [row for row in rows if worker in row.expected and cheaper in row.expected]
    if len(able) < LEAST_EVIDENCE:
        return None
    scores, weights = [], []
    for row in able:
        expected = row.expected[cheaper] - row.expected[worker]
        weight = min(1.0 / row.propensity, CAP)
        left = weight * (float(row.quality or 0.0) - row.expected[row.worker])
        scores.append(expected + (left if row.worker == cheaper else -left if row.worker == worker else 0.0))
        weights.append(weight if row.worker == cheaper else 0.0)
    evidence = sum(weights) ** 2 / max(sum(weight**2 for weight in weights), 1e-12)
    listed = np.array(scores)
    half = NORMAL_95 * float(listed.std() / np.sqrt(len(listed)))
    mean = float(listed.mean())
    if evidence < LEAST_EVIDENCE or mean - half < -INFERIOR:
        return None
    difference = Interval(mean=mean, low=mean - half, high=mean + half)
    return Swap(
        kind=kind, worker=worker, cheaper=cheaper, difference=difference, saved_usd=0.0, evidence=float(evidence)
    )


def _tell_saving(
    swap: Swap, rows: Sequence[Observed], prices: Mapping[tuple[str, str], tuple[float, float, float]]
) -> Swap:
    mine = [row for row in rows if row.kind == swap.kind and row.worker == swap.worker]
    each = prices[swap.kind, swap.worker][0] - prices[swap.kind, swap.cheaper][0]
    private = sum(row.tokens for row in mine if row.is_private)
    return replace(swap, saved_usd=each * len(mine), private_tokens=private)
