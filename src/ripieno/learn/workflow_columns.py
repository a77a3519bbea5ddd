"""Workflow columns: cascades and votes on measured tasks, replayed from the answers in the ledger.

A workflow becomes one more column of the data set. The same predictor estimates it, and the same utility scores it.
The answers are real, so workers with common errors gain nothing from agreement. Workflows stay only if the router with
them gains on held-out tasks.
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

MOST_WORKFLOWS = 4
"""Most workflows that become columns. More would be noise among the workers."""
MOST_STRONG = 4
"""Workers of the highest mean quality that may be the last stage of a cascade."""
LEAST_TASKS = 40
"""Least tasks with answers of all members that are replayed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnswerMatrix:
    """One answer of each worker to each task: n tasks, m workers. NaN and -1 if there is none."""

    said: np.ndarray
    """Number of the final answer, shape (n, m). Equal answers have equal numbers."""
    quality: np.ndarray
    cost_usd: np.ndarray
    latency_s: np.ndarray


def gather_answers(ledger: Ledger, data: RoutingData) -> list[AnswerMatrix]:
    """Gather the answers of a campaign, one matrix per repeat."""
    rows = {prompt.id: row for row, prompt in enumerate(data.prompts)}
    columns = {model.id: column for column, model in enumerate(data.models)}
    entries = (stored.entry for stored in ledger.read(kinds=("judged",)))
    judged = (entry for entry in entries if isinstance(entry, Judged) and not entry.verdict.is_void)
    qualities = {entry.run: entry.verdict.quality for entry in judged}
    sets: dict[int, AnswerMatrix] = {}
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
    workflow: Workflow, answers: AnswerMatrix, columns: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute quality, cost and latency of a workflow on each task, shape (n,) each; NaN if a member has no answer.

    Raises:
        TypeError: answers alone cannot replay the workflow.
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


def propose_workflows(
    data: RoutingData, answers: Sequence[AnswerMatrix], pool: Pool, *, objective: Objective, scales: Scales
) -> dict[WorkerId, Workflow]:
    """Propose the workflows with the highest gain over the best worker of each kind of task, on training tasks."""
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
    return {name: workflow for _, name, workflow in ranked[:MOST_WORKFLOWS]}


def add_columns(
    data: RoutingData, answers: Sequence[AnswerMatrix], workflows: Mapping[WorkerId, Workflow]
) -> RoutingData:
    """Add a column for each workflow to a data set."""
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


def fit_with_workflows(
    ledger: Ledger, data: RoutingData, features: Sequence[Features], pool: Pool, *, recipe: Recipe, base: Trained
) -> tuple[Trained, Interval] | None:
    """Fit a router with workflows as further columns; None if they have no proven gain on held-out tasks.

    `base` is the router without workflows, fitted to the same campaign. The interval is the paired gain in utility.
    """
    if base.bench is None:
        return None
    scales = find_scales(base.bench.train)
    answers = gather_answers(ledger, data)
    if not answers:
        return None
    workflows = propose_workflows(data, answers, pool, objective=recipe.objective, scales=scales)
    if not workflows:
        return None
    wider = add_columns(data, answers, workflows)
    bench = prepare(wider, features)
    rows = wider.split_rows("train")
    training = make_training_set(wider, [features[int(row)] for row in rows], rows)
    checkpoint = Checkpoint.fit(recipe.kind, training, rng=np.random.default_rng(recipe.seed))
    earned = routed_utility(replace(bench, scales=scales), checkpoint, recipe.objective)
    shared = np.isin(base.bench.test_rows, bench.test_rows)
    without = routed_utility(base.bench, base.checkpoint, recipe.objective)[shared]
    groups = base.bench.held_out.groups[shared]
    gain = bootstrap_mean(earned - without, rng=np.random.default_rng(recipe.seed), groups=groups)
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
    return replace(base, checkpoint=checkpoint, card=card), gain


_OUTCOMES = ("prompt_index", "model_index", "quality", "cost_usd", "latency_s", "input_tokens", "output_tokens")


def _empty(rows: int, columns: int) -> AnswerMatrix:
    unknown = [np.full((rows, columns), np.nan) for _ in range(3)]
    return AnswerMatrix(
        said=np.full((rows, columns), -1, dtype=np.int64), quality=unknown[0], cost_usd=unknown[1], latency_s=unknown[2]
    )


def _list_candidates(data: RoutingData, members: Sequence[WorkerId], pool: Pool) -> list[tuple[WorkerId, Workflow]]:
    """List agreements of two workers of different families with a strong fallback, and votes of three."""
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
    workflow: Workflow, answers: Sequence[AnswerMatrix], columns: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Replay all repeats. Each result has the shape (repeats, n)."""
    quality, cost, latency = zip(*(replay(workflow, found, columns) for found in answers), strict=True)
    return np.array(quality), np.array(cost), np.array(latency)


def _above_known(cost: np.ndarray, data: RoutingData, rows: np.ndarray) -> np.ndarray:
    """Replace the unknown costs of a workflow, shape (n,), by the highest known cost of a worker."""
    known = data.matrix(data.cost_usd)[rows]
    highest = float(np.nanmax(known)) if not np.isnan(known).all() else math.nan
    return np.where(np.isnan(cost), highest, cost)
