"""Modes: what cascades and votes would have brought on measured tasks, replayed from the answers in the ledger.

A workflow is one more column beside the workers: replayed, estimated by the same predictor, scored by the same
utility. As answers are replayed and not imagined, workers that err together gain nothing from agreeing. Workflows stay
only where the router with them earns more on held-out tasks than the router without.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ripieno.domain import Cascade, Ensemble, Executed, Features, Judged, Merge, Objective, Pool, WorkerId, Workflow
from ripieno.domain.grader import Agreement
from ripieno.domain.report import Interval
from ripieno.evaluate.benchmark import find_scales, prepare, routed_utility
from ripieno.evaluate.bootstrap import bootstrap_mean
from ripieno.learn.train import Recipe, Trained
from ripieno.ledger import Ledger
from ripieno.ledger.tagged import dump_tagged
from ripieno.route.predictors import Checkpoint
from ripieno.route.utility import Scales, score_outcomes
from ripieno.tasks import Model, RoutingData, make_training_set
from ripieno.verify.text import reduce_answer

MOST_MODES = 4
"""Workflows that become columns: more would be noise among the workers."""
MOST_STRONG = 4
"""Workers that a cascade may end with: those of the highest mean quality."""
LEAST_TASKS = 40
"""Tasks with answers of all members below which nothing is replayed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What each worker answered to each task once: n tasks, m workers; NaN and -1 where it was not asked."""

    said: np.ndarray
    """Number of the final answer, shape (n, m): equal where the answers are."""
    quality: np.ndarray
    cost_usd: np.ndarray
    latency_s: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ModesFound:
    """Workflows that pay, and the proof."""

    trained: Trained
    """The router with them."""
    gain: Interval
    """Utility that it earns more on held-out tasks, paired."""


def gather_answers(ledger: Ledger, data: RoutingData) -> list[Answers]:
    """The answers of a campaign, one set a repeat."""
    rows = {prompt.id: row for row, prompt in enumerate(data.prompts)}
    columns = {model.id: column for column, model in enumerate(data.models)}
    entries = (stored.entry for stored in ledger.read(kinds=("judged",)))
    judged = (entry for entry in entries if isinstance(entry, Judged) and not entry.verdict.is_void)
    qualities = {entry.run: entry.verdict.quality for entry in judged}
    sets: dict[int, Answers] = {}
    codes: dict[tuple[int, str], int] = {}
    for stored in ledger.read(kinds=("executed",), dataset=data.name):
        assert isinstance(stored.entry, Executed)
        run = stored.entry.run
        place = run.placement
        if place is None or run.answer is None or run.worker not in columns or place.item not in rows:
            continue
        if run.id not in qualities:
            continue
        found = sets.setdefault(place.repeat, _empty(len(rows), len(columns)))
        row, column = rows[place.item], columns[run.worker]
        found.said[row, column] = codes.setdefault((row, reduce_answer(run.answer.text)), len(codes))
        found.quality[row, column] = qualities[run.id]
        found.cost_usd[row, column] = run.cost_usd if run.cost_usd is not None else np.nan
        found.latency_s[row, column] = run.latency_s if run.latency_s is not None else np.nan
    return [sets[repeat] for repeat in sorted(sets)]


def replay(
    workflow: Workflow, answers: Answers, columns: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quality, cost and latency of a workflow on each task, each of shape (n,); NaN where a member was not asked.

    Raises:
        TypeError: the workflow is none that answers alone can replay.
    """
    quality, cost, latency = answers.quality, answers.cost_usd, answers.latency_s
    match workflow:
        case Cascade(stages=(first, last), check=Agreement(peer=peer)):
            a, b, s = columns[first], columns[peer], columns[last]
            agree = answers.said[:, a] == answers.said[:, b]
            right = np.where(agree, quality[:, a], quality[:, s])
            paid = cost[:, a] + cost[:, b] + np.where(agree, 0.0, cost[:, s])
            took = latency[:, a] + latency[:, b] + np.where(agree, 0.0, latency[:, s])
            members = (a, b, s)
        case Ensemble(members=(first, second, third), merge=Merge.VOTE):
            a, b, c = columns[first], columns[second], columns[third]
            agree = answers.said[:, a] == answers.said[:, b]
            turned = ~agree & (answers.said[:, b] == answers.said[:, c])
            right = np.where(turned, quality[:, b], quality[:, a])
            paid = cost[:, a] + cost[:, b] + np.where(agree, 0.0, cost[:, c])
            took = np.maximum(latency[:, a], latency[:, b]) + np.where(agree, 0.0, latency[:, c])
            members = (a, b, c)
        case _:
            raise TypeError(f"{type(workflow).__name__} cannot be replayed from answers")
    known = (answers.said[:, members] >= 0).all(axis=1)
    return np.where(known, right, np.nan), np.where(known, paid, np.nan), np.where(known, took, np.nan)


def propose_modes(
    data: RoutingData, answers: Sequence[Answers], pool: Pool, *, objective: Objective, scales: Scales
) -> dict[WorkerId, Workflow]:
    """The workflows that promise most on training tasks: gain over the best worker of each kind of task.

    Args:
        data: the campaign.
        answers: of its workers.
        pool: whose workers may be members.
        objective: what utility is measured for.
        scales: the ordinary price and wait.
    """
    columns = {model.id: column for column, model in enumerate(data.models)}
    rows = data.split_rows("train")
    kinds = np.array([data.prompts[row].kind for row in rows])
    right, paid, took = (data.matrix(part)[rows] for part in (data.quality, data.cost_usd, data.latency_s))
    solo = score_outcomes(right, paid, took, objective, scales)
    members = [WorkerId(model.id) for model in data.models if model.id in pool and not pool[model.id].is_restricted]
    ranked: list[tuple[float, WorkerId, Workflow]] = []
    for name, workflow in _list_candidates(data, members, pool):
        quality, cost, latency = (np.nanmean(part, axis=0)[rows] for part in _replay_all(workflow, answers, columns))
        known = ~np.isnan(quality)
        if known.sum() < LEAST_TASKS:
            continue
        earned = score_outcomes(quality, _above_known(cost, data, rows), latency, objective, scales)
        gain = sum(
            max(0.0, float(earned[here].mean() - np.nanmax(np.nanmean(solo[here], axis=0)))) * here.sum()
            for here in (known & (kinds == kind) for kind in np.unique(kinds))
            if here.any()
        )
        if gain > 0.0:
            ranked.append((gain / len(rows), name, workflow))
    ranked.sort(key=lambda found: (-found[0], found[1]))
    return {name: workflow for _, name, workflow in ranked[:MOST_MODES]}


def add_modes(data: RoutingData, answers: Sequence[Answers], workflows: Mapping[WorkerId, Workflow]) -> RoutingData:
    """The data set with a column for each workflow."""
    columns = {model.id: column for column, model in enumerate(data.models)}
    parts: dict[str, list[np.ndarray]] = {name: [getattr(data, name)] for name in _OUTCOMES}
    for place, workflow in enumerate(workflows.values()):
        for found in answers:
            quality, cost, latency = replay(workflow, found, columns)
            rows = np.flatnonzero(~np.isnan(quality))
            nothing = np.full(len(rows), np.nan)
            values = (rows, np.full(len(rows), len(data.models) + place), quality[rows], cost[rows], latency[rows])
            for name, value in zip(_OUTCOMES, (*values, nothing, nothing), strict=True):
                parts[name].append(value)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    models = (*data.models, *(Model(id=name) for name in workflows))
    return replace(data, models=models, **joined)  # type: ignore[arg-type]  # each array is of its field's type


def fit_with_modes(
    ledger: Ledger, data: RoutingData, features: Sequence[Features], pool: Pool, *, recipe: Recipe, base: Trained
) -> ModesFound | None:
    """The router with workflows as further columns; None where they do not pay on held-out tasks.

    Args:
        ledger: holds the answers.
        data: the campaign, with a test split.
        features: of all its prompts.
        pool: whose workers may be members.
        recipe: of the router.
        base: the router without.
    """
    if base.bench is None:
        return None
    scales = find_scales(base.bench.train)
    answers = gather_answers(ledger, data)
    if not answers:
        return None
    workflows = propose_modes(data, answers, pool, objective=recipe.objective, scales=scales)
    if not workflows:
        return None
    wider = add_modes(data, answers, workflows)
    bench = prepare(wider, features)
    rows = wider.split_rows("train")
    training = make_training_set(wider, [features[int(row)] for row in rows], rows)
    checkpoint = Checkpoint.fit(recipe.kind, training, rng=np.random.default_rng(recipe.seed))
    with_modes = routed_utility(replace(bench, scales=scales), checkpoint, recipe.objective)
    shared = np.isin(base.bench.test_rows, bench.test_rows)
    without = routed_utility(base.bench, base.checkpoint, recipe.objective)[shared]
    groups = base.bench.held_out.groups[shared]
    gain = bootstrap_mean(with_modes - without, rng=np.random.default_rng(recipe.seed), groups=groups)
    if gain.low <= 0.0:
        return None
    added = f"workflows add {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] utility"
    card = base.card.model_copy(
        update={
            "workers": checkpoint.workers,
            "metrics": checkpoint.metrics,
            "margin": checkpoint.margin,
            "workflows": {name: dump_tagged(workflow) for name, workflow in workflows.items()},
            "verdict": f"{base.card.verdict}; {added}",
        }
    )
    return ModesFound(trained=replace(base, checkpoint=checkpoint, card=card), gain=gain)


_OUTCOMES = ("prompt_index", "model_index", "quality", "cost_usd", "latency_s", "input_tokens", "output_tokens")


def _empty(rows: int, columns: int) -> Answers:
    shape = (rows, columns)
    return Answers(
        said=np.full(shape, -1, dtype=np.int64),
        quality=np.full(shape, np.nan),
        cost_usd=np.full(shape, np.nan),
        latency_s=np.full(shape, np.nan),
    )


def _list_candidates(data: RoutingData, members: Sequence[WorkerId], pool: Pool) -> list[tuple[WorkerId, Workflow]]:
    """Agreements of two workers of different families with a strong one behind them, and votes of three."""
    quality = np.nanmean(data.matrix(data.quality)[data.split_rows("train")], axis=0)
    mean = {WorkerId(model.id): float(quality[column]) for column, model in enumerate(data.models)}
    strong = sorted(members, key=lambda worker: -mean[worker])[:MOST_STRONG]
    found: list[tuple[WorkerId, Workflow]] = []
    for a, b in combinations(members, 2):
        first, peer = (a, b) if mean[a] >= mean[b] else (b, a)
        if pool[a].model_family == pool[b].model_family:
            continue
        for last in strong:
            if last not in (a, b):
                cascade = Cascade(stages=(first, last), check=Agreement(peer=peer))
                found.append((WorkerId(f"agreement:{first}+{peer}:{last}"), cascade))
                vote = Ensemble(members=(first, peer, last), merge=Merge.VOTE)
                found.append((WorkerId(f"vote:{first}+{peer}+{last}"), vote))
    return found


def _replay_all(
    workflow: Workflow, answers: Sequence[Answers], columns: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `replay`, of all repeats, each of shape (repeats, n)."""
    quality, cost, latency = zip(*(replay(workflow, found, columns) for found in answers), strict=True)
    return np.array(quality), np.array(cost), np.array(latency)


def _above_known(cost: np.ndarray, data: RoutingData, rows: np.ndarray) -> np.ndarray:
    """Costs of a workflow, shape (n,), with unknown ones as high as the highest known cost of a worker."""
    known = data.matrix(data.cost_usd)[rows]
    highest = float(np.nanmax(known)) if not np.isnan(known).all() else math.nan
    return np.where(np.isnan(cost), highest, cost)
