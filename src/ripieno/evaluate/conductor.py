"""Proof of a conductor on unseen workers, pools and phrasings, with controls of equal cost."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ripieno.conductor import Roster, parse_json, parse_text
from ripieno.conductor.policy import ACTIONS, STOP, Scene, TinyPolicy
from ripieno.conductor.tiny import describe_plan
from ripieno.conductor.turns import TurnPolicy
from ripieno.domain import Op
from ripieno.domain.grader import GradedTask
from ripieno.domain.report import Interval
from ripieno.errors import InvalidPlan
from ripieno.evaluate.bootstrap import Draws
from ripieno.evaluate.conductor_report import (
    CEILING,
    GATED,
    ONE_STEP,
    SINGLE,
    TRAINED,
    ConductorReport,
    EntrantRow,
    FamilyRow,
)
from ripieno.workbench.scenes import Stage, make_roster, read_plan, to_steps
from ripieno.workbench.search import Words, list_singles, search, try_plan
from ripieno.workbench.turns import find_outcomes, play, recurse
from ripieno.workbench.world import BenchOutcome, BenchPool, World

_SOLVE = ACTIONS.index((Op.SOLVE, 0))
_VERIFY = ACTIONS.index((Op.VERIFY, 1))
_RUN = ACTIONS.index((Op.RUN, 0))
_GATE_POOLS, _GATE_TASKS = 80, 4
_SINGLE_TASKS, _CEILING_TASKS = 10, 60
_PART = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """The tasks and pools that measure all entrants."""

    tasks: tuple[GradedTask, ...]
    pools: tuple[BenchPool, ...]
    """The pool of each task."""
    group: np.ndarray
    """Pool number of each task, shape (n,): intervals resample pools, not tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LmMeasure:
    """Mean results of a language model's plans on an exam."""

    parsed: float
    """Share of its answers that are valid plans."""
    right: float
    cost: float
    """In thousandths of a US dollar per task."""
    reward: float
    steps: float

    def describe(self) -> str:
        """Describe the results in a few words."""
        return f"parsed {self.parsed:.3f}, right {self.right:.3f}, cost {self.cost:.2f}, reward {self.reward:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamRuns:
    """Outcomes of an entrant that does not write plans in the policy's words."""

    runs: tuple[tuple[BenchOutcome, ...], ...]
    """Outcomes of the exam, one row per seed."""
    parsed: float
    """Share of answers that are valid plans."""


def make_exam(world: World, *, pools: int, tasks: int, seed: int, split: str = "test") -> Exam:
    """Draw pools and tasks of one split: `tasks` of each family and pool."""
    rng = np.random.default_rng([seed, 17])
    drawn = [world.draw_pool(split, rng) for _ in range(pools)]
    chosen: list[GradedTask] = []
    places: list[int] = []
    for place in range(pools):
        for family in world.families:
            listed = world.tasks[split, family]
            chosen += [listed[index] for index in rng.permutation(len(listed))[:tasks]]
            places += [place] * tasks
    return Exam(tasks=tuple(chosen), pools=tuple(drawn[place] for place in places), group=np.array(places))


def write_plans(policy: TinyPolicy, stage: Stage, exam: Exam) -> list[Words]:
    """Write the plan of a policy for each task of an exam."""
    plans: list[Words] = []
    for scene, _, _ in _walk(stage, exam):
        plans += [tuple(plan) for plan in policy.write(scene)]
    return plans


def _walk(stage: Stage, exam: Exam) -> Iterator[tuple[Scene, Sequence[GradedTask], Sequence[BenchPool]]]:
    """Yield an exam in parts that fit into memory."""
    for start in range(0, len(exam.tasks), _PART):
        tasks, pools = exam.tasks[start : start + _PART], exam.pools[start : start + _PART]
        yield stage.make(tasks, pools), tasks, pools


def sit(world: World, exam: Exam, plans: Sequence[Words]) -> list[BenchOutcome]:
    """Run one plan per task."""
    return [
        world.run(task, to_steps(plan), pool) for task, plan, pool in zip(exam.tasks, plans, exam.pools, strict=True)
    ]


def sit_policies(stage: Stage, exam: Exam, policies: Sequence[TurnPolicy | TinyPolicy]) -> ExamRuns:
    """Run policies that see results: heads of turns, and plans of which an empty result leads to a second plan."""
    runs = []
    for policy in policies:
        outcomes: list[BenchOutcome] = []
        for scene, tasks, pools in _walk(stage, exam):
            if isinstance(policy, TurnPolicy):
                outcomes += find_outcomes(stage.world, play(policy, stage, scene, tasks, pools))
            else:
                outcomes += recurse(policy, stage, scene, tasks, pools)
        runs.append(tuple(outcomes))
    return ExamRuns(runs=tuple(runs), parsed=1.0)


def sit_texts(world: World, exam: Exam, texts: Sequence[str]) -> ExamRuns:
    """Run the plans that a language model wrote. An invalid plan has no answer."""
    outcomes, parsed = [], []
    for task, pool, written in zip(exam.tasks, exam.pools, texts, strict=True):
        try:
            plan = parse_json(written, make_roster([worker.can_run for worker in pool.workers]))
        except InvalidPlan:
            outcomes.append(BenchOutcome(is_right=False, cost=0.0, steps=1))
            parsed.append(False)
        else:
            outcomes.append(world.run(task, read_plan(plan), pool))
            parsed.append(True)
    return ExamRuns(runs=(tuple(outcomes),), parsed=float(np.mean(parsed)))


def mark(world: World, exam: Exam, texts: Sequence[str]) -> LmMeasure:
    """Measure the means of a language model's plans on an exam."""
    entrant = sit_texts(world, exam, texts)
    return LmMeasure(parsed=entrant.parsed, **mean_outcomes(entrant.runs[0]))


def mean_outcomes(outcomes: Sequence[BenchOutcome]) -> dict[str, float]:
    """Return the means of `right`, `cost`, `reward` and `steps`."""
    return {name: float(values.mean()) for name, values in _mean_seeds([outcomes]).items()}


def gate_plans(stage: Stage, exam: Exam, conductor: TinyPolicy, router: TinyPolicy, *, seed: int) -> list[Words]:
    """Take the conductor's plans for kinds of tasks in which they gain on training tasks, else the router's."""
    proof = make_exam(stage.world, pools=_GATE_POOLS, tasks=_GATE_TASKS, seed=seed, split="train")
    runs = [sit(stage.world, proof, write_plans(policy, stage, proof)) for policy in (conductor, router)]
    lead = np.array([ours.reward - theirs.reward for ours, theirs in zip(*runs, strict=True)])
    kinds = np.array(stage.guess_families(proof.tasks))
    pays = set()
    for kind in range(len(stage.world.families)):
        rows = kinds == kind
        if rows.any() and Draws(proof.group[rows], rng=np.random.default_rng(seed)).interval(lead[rows]).low > 0.0:
            pays.add(kind)
    both = zip(write_plans(conductor, stage, exam), write_plans(router, stage, exam), strict=True)
    guessed = stage.guess_families(exam.tasks)
    return [plan if kind in pays else step for (plan, step), kind in zip(both, guessed, strict=True)]


def choose_singles(world: World, exam: Exam, *, seed: int) -> dict[int, list[int]]:
    """Rank the workers of each pool by accuracy on the phrasings of training, best first."""
    found: dict[int, list[int]] = {}
    for place, pool in zip(exam.group.tolist(), exam.pools, strict=True):
        if place in found:
            continue
        rng = np.random.default_rng([seed, 19, place])
        tasks = [
            world.tasks["train", family][index]
            for family in world.families
            for index in rng.permutation(len(world.tasks["train", family]))[:_SINGLE_TASKS]
        ]
        right = [try_plan(world, pool, plan, tasks).right for plan in list_singles(pool)]
        found[place] = [int(index) for index in np.argsort(right)[::-1]]
    return found


def plan_by_hand(exam: Exam, ranked: Mapping[int, list[int]], *, calls: float, money: float) -> dict[str, list[Words]]:
    """Write the controls: the best worker alone, agreement, and votes of equal calls or equal cost.

    `calls` and `money` are means of the conductor; money is in thousandths of a US dollar.
    """
    made: dict[str, list[Words]] = {SINGLE: [], "agreement of two, else a third": [], "best of n, equal calls": []}
    made["best of n, equal money"] = []
    most = max(round(calls), 1)
    for place, pool in zip(exam.group.tolist(), exam.pools, strict=True):
        order = [worker for worker in ranked[place] if not pool.workers[worker].can_run]
        made[SINGLE].append((_single(pool, ranked[place][0]),))
        first, second, third = (*order, *order, *order)[:3]
        made["agreement of two, else a third"].append(((_SOLVE, first), (_VERIFY, second), (_SOLVE, third)))
        made["best of n, equal calls"].append(_vote(order, most))
        affordable = [worker for worker in order if pool.workers[worker].cost <= money]
        made["best of n, equal money"].append(_spend(pool, affordable or order[-1:], money))
    return made


def find_ceiling(
    world: World, exam: Exam, *, seed: int, on_progress: Callable[[int], None] = lambda found: None
) -> list[Words]:
    """Find the best plan of each pool and family by exhaustive search on other tasks of the family."""
    split = exam.pools[0].workers[0].split
    known: dict[tuple[int, str], Words] = {}
    plans = []
    for task, place, pool in zip(exam.tasks, exam.group.tolist(), exam.pools, strict=True):
        if (place, task.family) not in known:
            rng = np.random.default_rng([seed, 23, place])
            listed = world.tasks[split, task.family]
            held = {each.id for each, at in zip(exam.tasks, exam.group, strict=True) if at == place}
            others = [listed[index] for index in rng.permutation(len(listed)) if listed[index].id not in held]
            first = _CEILING_TASKS // 3
            known[place, task.family] = search(world, pool, others[:_CEILING_TASKS], first=first)[0].plan
            on_progress(len(known))
        plans.append(known[place, task.family])
    return plans


def force_best(exam: Exam, plans: Sequence[Words], ranked: Mapping[int, list[int]]) -> list[Words]:
    """Replace every worker of the plans by the best single one, to measure the value of their structure."""
    forced = []
    for plan, place, pool in zip(plans, exam.group.tolist(), exam.pools, strict=True):
        best = next(worker for worker in ranked[place] if not pool.workers[worker].can_run)
        forced.append(tuple((_unrun(action), best) for action, _ in plan))
    return forced


def measure_parsed(exam: Exam, runs: Sequence[Sequence[Words]]) -> float:
    """Measure the share of plans that the grammar reads back from their words."""
    rosters: dict[int, Roster] = {}
    read = 0
    for run in runs:
        for plan, place, pool in zip(run, exam.group.tolist(), exam.pools, strict=True):
            if place not in rosters:
                rosters[place] = make_roster([worker.can_run for worker in pool.workers])
            with suppress(InvalidPlan):
                parse_text(describe_plan(plan), rosters[place])
                read += 1
    return read / sum(map(len, runs))


def report(
    exam: Exam,
    plans: Mapping[str, Sequence[Sequence[Words]]],
    world: World,
    *,
    others: Mapping[str, ExamRuns] | None = None,
) -> ConductorReport:
    """Run every entrant's plans, and make the table.

    `plans` has one list per seed for each entrant. The outcomes of `others` are known.
    """
    outcomes: dict[str, Sequence[Sequence[BenchOutcome]]] = {
        name: [sit(world, exam, run) for run in runs] for name, runs in plans.items()
    }
    parsed = {name: measure_parsed(exam, runs) for name, runs in plans.items()}
    for name, entrant in (others or {}).items():
        outcomes[name], parsed[name] = entrant.runs, entrant.parsed
    draws = Draws(exam.group, rng=np.random.default_rng(0))
    means = {name: _mean_seeds(runs) for name, runs in outcomes.items()}
    ours = means[TRAINED]
    rows = [
        EntrantRow(
            name=name,
            right=draws.interval(found["right"]),
            cost=float(found["cost"].mean()),
            reward=draws.interval(found["reward"]),
            steps=float(found["steps"].mean()),
            lead_right=None if name == TRAINED else draws.interval(ours["right"] - found["right"]),
            lead_reward=None if name == TRAINED else draws.interval(ours["reward"] - found["reward"]),
            parsed=parsed[name],
        )
        for name, found in means.items()
    ]
    families = _tell_families(exam, means)
    calls = Counter(
        "general" if exam.pools[row].workers[worker].is_generalist else exam.pools[row].workers[worker].skills[0]
        for run in plans[TRAINED]
        for row, plan in enumerate(run)
        for _, worker in plan
    )
    lengths = Counter(len(plan) for run in plans[TRAINED] for plan in run)
    return ConductorReport(
        rows=tuple(rows),
        pools=len(np.unique(exam.group)),
        tasks=len(exam.tasks),
        seeds=len(plans[TRAINED]),
        shares={name: count / calls.total() for name, count in calls.most_common()},
        steps={length: count / lengths.total() for length, count in sorted(lengths.items())},
        families=families,
        flat_lead=_find_flat_lead(exam, families, ours["reward"] - means[ONE_STEP]["reward"]),
        gated_flat_lead=_find_flat_lead(exam, families, means[GATED]["reward"] - means[ONE_STEP]["reward"]),
    )


def _tell_families(exam: Exam, means: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[FamilyRow, ...]:
    names = np.array([task.family for task in exam.tasks])

    def share(entrant: str, name: str) -> float:
        return float(means[entrant]["right"][names == name].mean())

    return tuple(
        FamilyRow(
            name=name, one_step=share(ONE_STEP, name), conductor=share(TRAINED, name), ceiling=share(CEILING, name)
        )
        for name in dict.fromkeys(names.tolist())
    )


def _find_flat_lead(exam: Exam, families: Sequence[FamilyRow], lead: np.ndarray) -> Interval | None:
    flat = {row.name for row in families if row.is_flat}
    rows = np.array([task.family in flat for task in exam.tasks])
    if not rows.any():
        return None
    return Draws(exam.group[rows], rng=np.random.default_rng(0)).interval(lead[rows])


def _mean_seeds(runs: Sequence[Sequence[BenchOutcome]]) -> dict[str, np.ndarray]:
    names = {"right": "is_right", "cost": "cost", "reward": "reward", "steps": "steps"}
    return {
        name: np.mean([[getattr(each, field) for each in run] for run in runs], axis=0) for name, field in names.items()
    }


def _single(pool: BenchPool, worker: int) -> tuple[int, int]:
    return (_RUN if pool.workers[worker].can_run else _SOLVE, worker)


def _vote(order: Sequence[int], most: int) -> Words:
    """Return the first worker's answer, or with three calls the answer that two give, else the third's."""
    if most < 3 or len(order) < 3:
        return ((_SOLVE, order[0]),)
    return ((_SOLVE, order[0]), (_VERIFY, order[1]), (_SOLVE, order[2]))


def _spend(pool: BenchPool, order: Sequence[int], money: float) -> Words:
    """Return the `_vote` of the workers that the money pays for."""
    chosen: list[int] = []
    for worker in order:
        if sum(pool.workers[each].cost for each in [*chosen, worker]) <= money and len(chosen) < 3:
            chosen.append(worker)
    return _vote(chosen or list(order[:1]), len(chosen))


def _unrun(action: int) -> int:
    """Return the same action for a worker that does not execute code."""
    op, source = ACTIONS[action] if action != STOP else (Op.SOLVE, 0)
    return ACTIONS.index((Op.SOLVE, source)) if op is Op.RUN else action
