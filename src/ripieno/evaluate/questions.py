"""The report on traffic: questions about the routing, answered from recorded decisions and their results.

Each answer states its evidence. Below a threshold it is "not enough evidence", and nothing is ranked.

Source:
    Dudik et al. (2011), Doubly robust policy evaluation; Wilson (1927), Probable inference.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ripieno.domain import Outcome
from ripieno.domain.report import Interval
from ripieno.evaluate.bootstrap import NORMAL_95, find_quantile, subtract_means, wilson
from ripieno.evaluate.observed import CHEAPER, INFERIOR, LEAST_EVIDENCE, Observed, mean_known
from ripieno.evaluate.offpolicy import CAP
from ripieno.evaluate.prices import PriceRow, compare_prices
from ripieno.evaluate.profiles import WorkerProfile, profile_workers
from ripieno.evaluate.steps import StepUse, find_steps

LEAST_EDGES = 20
"""Least failures of one worker with the same fallback that are ranked."""
HARDLY = 0.1
"""Share of accepted runs below which a fallback counts as useless."""
FULL = 0.7
"""Share of a local worker's time above which tasks would queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendRow:
    """Use and results of one kind of task, key, project or worker."""

    name: str
    runs: int
    tokens: int
    cost_usd: float
    """Known part of the cost: a lower bound if `unknown` is not 0."""
    wasted: float
    """Share of its tokens in failed calls and rejected answers."""
    accepted: Interval | None
    """Share of judged answers that were accepted; None below the evidence threshold."""
    judged: int
    tokens_per_accepted: float | None
    latency_s: float
    change: float | None
    """Relative change in tokens from the earlier half of all decisions to the later; None below the threshold."""
    unknown: int = 0
    """Calls whose cost is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A worker that a cheaper one could replace on a kind of task."""

    kind: str
    worker: str
    cheaper: str
    difference: Interval
    """Accepted answers of the cheaper worker minus those of the worker."""
    saved_usd: float
    """Saved cost on the tasks that the worker got in these decisions."""
    evidence: float
    """Effective number of judged outcomes."""
    private_tokens: int = 0
    """Tokens of private tasks that would stay on this machine; for local workers."""
    p95_s: float | None = None
    """95th percentile of the cheaper worker's latency on this kind; for local workers."""
    load: float | None = None
    """Share of the local worker's time that these tasks would take, at their observed rate."""
    blocked: str = ""
    """Reason against the move."""

    @property
    def room(self) -> str | None:
        """Return the reason against the move, or the load of the local worker."""
        return self.blocked or (f"{self.load:.0%} busy" if self.load is not None else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Value of one fallback: the worker that failed, and the worker that was called then."""

    failed: str
    failure: str
    then: str
    count: int
    answered: int
    judged: int
    accepted: Interval | None
    """Share of judged runs with this fallback that were accepted; None below the threshold."""
    false: int
    """Answers that were returned and then rejected."""
    lift: Interval | None = None
    """Accepted runs minus those in which the failed worker answered at another attempt."""
    added_s: float = 0.0
    """Mean time after the failure."""
    added_usd: float | None = 0.0
    """Mean cost after the failure; None if some cost is unknown."""

    @property
    def never_recovers(self) -> bool:
        """Return whether the evidence says that hardly any answer is accepted."""
        return self.accepted is not None and self.accepted.high < HARDLY

    @property
    def recovery(self) -> Interval | str | None:
        """Return the gain over another attempt, or "never" if the fallback never recovers."""
        return "never" if self.never_recovers else self.lift


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFault:
    """A tool whose failures harm runs."""

    tool: str
    faults: int
    calls: int
    harm: Interval
    """Share of accepted runs without its failures minus that with them, among tasks of the same kind."""
    tokens: int
    """Tokens of the runs in which it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficReport:
    """Answers to all questions on traffic."""

    decisions: int
    judged: int
    kinds: tuple[SpendRow, ...]
    keys: tuple[SpendRow, ...]
    projects: tuple[SpendRow, ...]
    workers: tuple[SpendRow, ...]
    profiles: tuple[WorkerProfile, ...]
    steps: tuple[StepUse, ...]
    overqualified: tuple[Swap, ...]
    fallbacks: tuple[Edge, ...]
    tools: tuple[ToolFault, ...]
    local: tuple[Swap, ...]
    prices: tuple[PriceRow, ...] = ()
    """Measured workers on the same tasks."""
    thin: Mapping[str, str] = field(default_factory=dict)
    """Questions without enough evidence, with the evidence that there is."""


def answer(
    rows: Sequence[Observed], *, local: Mapping[str, int] | None = None, outcomes: Iterable[Outcome] = ()
) -> TrafficReport:
    """Answer all questions.

    `local` maps each worker of this machine to its concurrent tasks. `outcomes` are those of measured workers.
    """
    judged = sum(row.quality is not None for row in rows)
    here = local or {}
    swaps = find_swaps(rows)
    overqualified = tuple(swap for swap in swaps if swap.cheaper not in here or swap.worker in here)
    moves = tuple(
        _fit(swap, rows, here[swap.cheaper]) for swap in swaps if swap.cheaper in here and swap.worker not in here
    )
    edges, tools = find_edges(rows), find_tool_faults(rows)
    said = {"overqualified": overqualified, "fallbacks": edges, "tools": tools, "local": moves}
    thin = f"not enough evidence: {judged} of {LEAST_EVIDENCE} judged"
    return TrafficReport(
        decisions=len(rows),
        judged=judged,
        kinds=summarise(rows, lambda row: row.kind),
        keys=summarise(rows, lambda row: row.key or "none"),
        projects=summarise(rows, lambda row: row.project or "none"),
        workers=summarise(rows, lambda row: row.worker),
        profiles=profile_workers(rows),
        steps=find_steps(rows),
        overqualified=overqualified,
        fallbacks=edges,
        tools=tools,
        local=moves,
        prices=compare_prices(outcomes),
        thin={name: thin for name, listed in said.items() if not listed and judged < LEAST_EVIDENCE},
    )


def summarise(rows: Sequence[Observed], name: Callable[[Observed], str]) -> tuple[SpendRow, ...]:
    """Summarise each group, the group with the most tokens first."""
    groups: dict[str, list[Observed]] = defaultdict(list)
    for row in rows:
        groups[name(row)].append(row)
    later = {id(row) for row in rows[len(rows) // 2 :]}
    found = [_summarise_one(group, mine, later) for group, mine in groups.items()]
    return tuple(sorted(found, key=lambda spend: -spend.tokens))


def find_swaps(rows: Sequence[Observed]) -> tuple[Swap, ...]:
    """Find workers that a cheaper one could replace on a kind of task, by doubly robust estimates.

    The cheaper one is non-inferior: the lower end of the 95 % interval is above `-INFERIOR`, with an effective number
    of at least `LEAST_EVIDENCE` outcomes.
    """
    kinds: dict[str, list[Observed]] = defaultdict(list)
    for row in rows:
        if row.reward is not None:
            kinds[row.kind].append(row)
    prices = _find_prices(rows)
    pairs = [
        (kind, worker, cheaper)
        for kind, mine in kinds.items()
        for worker in sorted({row.worker for row in mine})
        for cheaper in sorted({name for row in mine for name in row.expected} - {worker})
        if _is_cheaper(prices.get((kind, cheaper)), prices.get((kind, worker)))
    ]
    tables = {kind: _Kind(kinds[kind]) for kind in {kind for kind, _, _ in pairs}}
    found = [tables[kind].compare(kind, worker, cheaper) for kind, worker, cheaper in pairs]
    swaps = [swap for swap in found if swap is not None]
    best: dict[tuple[str, str], Swap] = {}
    for swap in sorted(swaps, key=lambda each: prices[each.kind, each.cheaper].mean):
        best.setdefault((swap.kind, swap.worker), swap)
    return tuple(sorted((_add_saving(swap, rows, prices) for swap in best.values()), key=lambda swap: -swap.saved_usd))


def find_edges(rows: Sequence[Observed]) -> tuple[Edge, ...]:
    """List the fallbacks after each failure, by the share of accepted answers."""
    edges: dict[tuple[str, str, str], list[tuple[Observed, int]]] = defaultdict(list)
    again: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for place, (call, then) in enumerate(zip(row.calls, row.calls[1:], strict=False), start=1):
            if call.failure is not None and call.step == then.step:
                edges[call.worker, call.failure, then.worker].append((row, place))
        if row.is_realised and row.calls[-1].attempts > 1 and row.quality is not None:
            again[row.worker].append(row.quality)
    found = [
        _weigh_edge(place, mine, again.get(place[0], ())) for place, mine in edges.items() if len(mine) >= LEAST_EDGES
    ]
    return tuple(sorted(found, key=lambda edge: -(edge.accepted.low if edge.accepted is not None else -1.0)))


def find_tool_faults(rows: Sequence[Observed]) -> tuple[ToolFault, ...]:
    """Find tools after whose failures fewer runs are accepted, the most harmful first."""
    judged = [row for row in rows if row.quality is not None]
    tools = sorted({tool for row in judged for tool in row.tools})
    found = []
    for tool in tools:
        using = [row for row in judged if tool in row.tools]
        failed = [row for row in using if tool in row.faults]
        if len(failed) < LEAST_EDGES or len(using) - len(failed) < LEAST_EDGES:
            continue
        harm = _compare_within_kinds(using, tool, tests=len(tools))
        if harm is not None and harm.low > 0.0:
            tokens = sum(row.tokens for row in failed)
            found.append(ToolFault(tool=tool, faults=len(failed), calls=len(using), harm=harm, tokens=tokens))
    return tuple(sorted(found, key=lambda fault: -fault.harm.mean * fault.faults))


def _weigh_edge(place: tuple[str, str, str], mine: Sequence[tuple[Observed, int]], again: Sequence[float]) -> Edge:
    rows = [row for row, _ in mine]
    qualities = [row.quality for row in rows if row.quality is not None]
    answered = [row for row in rows if row.calls[-1].failure is None]
    enough = len(qualities) >= LEAST_EDGES
    return Edge(
        failed=place[0],
        failure=place[1],
        then=place[2],
        count=len(mine),
        answered=len(answered),
        judged=len(qualities),
        accepted=wilson(qualities) if enough else None,
        false=sum(row.quality is not None and row.quality < 0.5 for row in answered),
        lift=subtract_means(qualities, again, tests=1) if enough and len(again) >= LEAST_EDGES else None,
        added_s=float(np.mean([sum(call.latency_s or 0.0 for call in row.calls[start:]) for row, start in mine])),
        added_usd=mean_known([call.cost_usd for row, start in mine for call in row.calls[start:]], of=len(mine)),
    )


def _compare_within_kinds(using: Sequence[Observed], tool: str, *, tests: int) -> Interval | None:
    """Compare runs without and with a failure of a tool within each kind, weighted by the failures in each."""
    kinds: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in using:
        kinds[row.kind][tool in row.faults].append(float(row.quality or 0.0))
    both = [(fine, failed) for fine, failed in kinds.values() if fine and failed]
    total = sum(len(failed) for _, failed in both)
    if total < LEAST_EDGES:
        return None
    spread = float(np.var([quality for pair in both for side in pair for quality in side]))
    mean = sum(len(failed) * (np.mean(fine) - np.mean(failed)) for fine, failed in both) / total
    variance = sum(len(failed) ** 2 * spread * (1 / len(fine) + 1 / len(failed)) for fine, failed in both) / total**2
    half = find_quantile(tests) * float(np.sqrt(variance))
    return Interval(mean=float(mean), low=float(mean - half), high=float(mean + half))


def _fit(swap: Swap, rows: Sequence[Observed], at_once: int) -> Swap:
    """Add the load of a local worker after the move, and the reason against it if there is one."""
    own = [row.latency_s for row in rows if row.kind == swap.kind and row.worker == swap.cheaper and row.is_realised]
    moved = [row for row in rows if row.kind == swap.kind and row.worker == swap.worker]
    if not own:
        return swap
    p95, span = float(np.quantile(own, 0.95)), rows[-1].at - rows[0].at
    load = len(moved) / span * float(np.mean(own)) / at_once if span > 0.0 else None
    deadlines = [row.deadline_s for row in moved if row.deadline_s is not None]
    blocked = ""
    if load is not None and load >= FULL:
        blocked = f"it would be busy {load:.0%} of the time"
    elif deadlines and p95 > float(np.median(deadlines)):
        blocked = f"one answer in twenty takes {p95:.3g} s, the deadline is {float(np.median(deadlines)):.3g} s"
    return replace(swap, p95_s=p95, load=load, blocked=blocked)


def _summarise_one(name: str, rows: Sequence[Observed], later: set[int]) -> SpendRow:
    tokens = sum(row.tokens for row in rows)
    recent = sum(row.tokens for row in rows if id(row) in later)
    qualities = [row.quality for row in rows if row.quality is not None]
    rejected = sum(row.tokens for row in rows if row.quality is not None and row.quality < 0.5)
    failed = sum(call.tokens for row in rows for call in row.calls if call.failure is not None)
    judged_tokens = sum(row.tokens for row in rows if row.quality is not None)
    accepted = sum(quality >= 0.5 for quality in qualities)
    return SpendRow(
        name=name,
        runs=len(rows),
        tokens=tokens,
        cost_usd=sum(row.cost_usd for row in rows),
        unknown=sum(row.unknown_costs for row in rows),
        wasted=min((failed + rejected) / tokens, 1.0) if tokens else 0.0,
        accepted=wilson(qualities) if len(qualities) >= LEAST_EVIDENCE else None,
        judged=len(qualities),
        tokens_per_accepted=judged_tokens / accepted if accepted else None,
        latency_s=float(np.median([row.latency_s for row in rows])),
        change=recent / (tokens - recent) - 1.0 if len(rows) >= LEAST_EVIDENCE and tokens > recent else None,
    )


def _find_prices(rows: Sequence[Observed]) -> dict[tuple[str, str], Interval]:
    """Find the mean cost of a worker's answers by kind, with its interval."""
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        cost = row.calls[-1].cost_usd if row.is_realised else None
        if cost is not None:
            costs[row.kind, row.worker].append(cost)
    return {place: _find_interval(np.array(values)) for place, values in costs.items()}


def _find_interval(values: np.ndarray) -> Interval:
    """Compute the mean with its normal interval."""
    mean, half = float(values.mean()), NORMAL_95 * float(values.std()) / float(np.sqrt(len(values)))
    return Interval(mean=mean, low=mean - half, high=mean + half)


def _is_cheaper(one: Interval | None, other: Interval | None) -> bool:
    return one is not None and other is not None and one.high < CHEAPER * other.low


class _Kind:
    """Decisions of one kind of task as arrays: n decisions, m workers."""

    def __init__(self, rows: Sequence[Observed]) -> None:
        self.workers = sorted({name for row in rows for name in (row.worker, *row.expected)})
        self.column = {name: index for index, name in enumerate(self.workers)}
        self.expected = np.full((len(rows), len(self.workers)), np.nan)
        for place, row in enumerate(rows):
            for name, quality in row.expected.items():
                self.expected[place, self.column[name]] = quality
        self.taken = np.array([self.column[row.worker] for row in rows])
        self.weight = np.array([min(1.0 / row.propensity, CAP) for row in rows])
        reward = np.array([float(row.reward or 0.0) for row in rows])
        self.left = self.weight * (reward - self.expected[np.arange(len(rows)), self.taken])
        """Weighted reward minus expected reward of each decision."""

    def compare(self, kind: str, worker: str, cheaper: str) -> Swap | None:
        """Estimate the cheaper worker's value minus the other's; None without evidence, or if it is worse."""
        mine, other = self.column[worker], self.column[cheaper]
        able = ~np.isnan(self.expected[:, [mine, other]]).any(axis=1)
        if able.sum() < LEAST_EVIDENCE:
            return None
        taken, left = self.taken[able], self.left[able]
        expected = self.expected[able, other] - self.expected[able, mine]
        scores = expected + np.where(taken == other, left, np.where(taken == mine, -left, 0.0))
        weights = np.where(taken == other, self.weight[able], 0.0)
        evidence = float(weights.sum() ** 2 / max((weights**2).sum(), 1e-12))
        difference = _find_interval(scores)
        if evidence < LEAST_EVIDENCE or difference.low < -INFERIOR:
            return None
        return Swap(kind=kind, worker=worker, cheaper=cheaper, difference=difference, saved_usd=0.0, evidence=evidence)


def _add_saving(swap: Swap, rows: Sequence[Observed], prices: Mapping[tuple[str, str], Interval]) -> Swap:
    mine = [row for row in rows if row.kind == swap.kind and row.worker == swap.worker]
    each = prices[swap.kind, swap.worker].mean - prices[swap.kind, swap.cheaper].mean
    private = sum(row.tokens for row in mine if row.is_private)
    return replace(swap, saved_usd=each * len(mine), private_tokens=private)
