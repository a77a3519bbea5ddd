"""Search: finds plans that solve a family of tasks with a pool. It gives training data and the headroom."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.conductor.policy import ACTIONS
from ripieno.domain import Op
from ripieno.domain.grader import GradedTask
from ripieno.workbench.scenes import to_steps
from ripieno.workbench.skills import UNKNOWN
from ripieno.workbench.world import BenchPool, World

Words = tuple[tuple[int, int], ...]
"""A plan as (action, worker) pairs."""

DEEPEST = 3
"""Most steps of the searched chains."""
MOST_TRIED = 40
"""Plans of one pool and family that are tried on more tasks."""
_PLACE = {pair: place for place, pair in enumerate(ACTIONS)}
_QUESTION, _PREV, _ALL = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """A plan with its mean results on some tasks."""

    plan: Words
    reward: float
    right: float
    cost: float


def try_plan(world: World, pool: BenchPool, plan: Words, tasks: Sequence[GradedTask]) -> PlanResult:
    """Measure a plan's mean results over some tasks."""
    steps = to_steps(plan)
    outcomes = [world.run(task, steps, pool) for task in tasks]
    return PlanResult(
        plan=plan,
        reward=float(np.mean([outcome.reward for outcome in outcomes])),
        right=float(np.mean([outcome.is_right for outcome in outcomes])),
        cost=float(np.mean([outcome.cost for outcome in outcomes])),
    )


def list_singles(pool: BenchPool) -> list[Words]:
    """List the plans of one step."""
    return [
        ((_PLACE[Op.RUN if worker.can_run else Op.SOLVE, _QUESTION], place),)
        for place, worker in enumerate(pool.workers)
    ]


def propose(world: World, pool: BenchPool, tasks: Sequence[GradedTask]) -> list[Words]:
    """Propose plans that solve at least one task: rewriting chains, and checked or voted single steps."""
    chains: dict[Words, int] = {}
    for task in tasks:
        for chain in _rewrite(world, pool, task):
            chains[chain] = chains.get(chain, 0) + 1
    ranked = sorted(chains, key=lambda chain: (-chains[chain], len(chain)))
    singles = [chain for chain in ranked if len(chain) == 1]
    return list(dict.fromkeys([*ranked, *_check_singles(pool, singles[:4])]))


def search(
    world: World, pool: BenchPool, tasks: Sequence[GradedTask], *, first: int, most: int = MOST_TRIED
) -> list[PlanResult]:
    """Return the best plans first: proposed and ranked on some tasks, then ranked again on all others.

    The `first` tasks propose. `tasks` are of one family.
    """
    proposed = [try_plan(world, pool, plan, tasks[:first]) for plan in propose(world, pool, tasks[:first])]
    proposed += [try_plan(world, pool, plan, tasks[:first]) for plan in list_singles(pool)]
    best = sorted(proposed, key=lambda tried: -tried.reward)[:most]
    again = {tried.plan: try_plan(world, pool, tried.plan, tasks[first:]) for tried in best}
    return sorted(again.values(), key=lambda tried: -tried.reward)


def _rewrite(world: World, pool: BenchPool, task: GradedTask) -> list[Words]:
    """Find chains of workers that turn a task into its answer, text by text."""
    found: list[Words] = []
    frontier: list[tuple[tuple[int, ...], str]] = [((), task.task.text)]
    for depth in range(DEEPEST):
        grown: list[tuple[tuple[int, ...], str]] = []
        for chain, text in frontier:
            for place, worker in enumerate(pool.workers):
                result = world.act(worker, text)
                if result == text or result.startswith(UNKNOWN):
                    continue
                if world.grade(task, result):
                    found.append(_name(pool, (*chain, place)))
                elif depth + 1 < DEEPEST:
                    grown.append(((*chain, place), result))
        frontier = grown
    return found


def _name(pool: BenchPool, chain: Sequence[int]) -> Words:
    """Write a chain of workers as a plan: extract or solve first, transform between, solve at the end."""
    words = []
    for position, place in enumerate(chain):
        is_last = position == len(chain) - 1
        source = _PREV if position else _QUESTION
        if pool.workers[place].can_run:
            op = Op.RUN
        elif is_last:
            op = Op.SOLVE
        else:
            op = Op.TRANSFORM if position else Op.EXTRACT
        words.append((_PLACE[op, source], place))
    return tuple(words)


def _check_singles(pool: BenchPool, singles: Sequence[Words]) -> list[Words]:
    """List single steps that another worker checks, with a third as fallback, and votes if a worker counts them."""
    places = [single[0][1] for single in singles]
    voters = [place for place, worker in enumerate(pool.workers) if worker.skills == ("vote",)]
    solve, verify, merge = _PLACE[Op.SOLVE, _QUESTION], _PLACE[Op.VERIFY, _PREV], _PLACE[Op.MERGE, _ALL]
    plans: list[Words] = []
    for a in places:
        for b in places:
            if a == b or pool.workers[a].can_run or pool.workers[b].can_run:
                continue
            plans += [((solve, a), (verify, b), (solve, c)) for c in places if not pool.workers[c].can_run]
    if len(places) >= 3 and voters:
        three = [place for place in places if not pool.workers[place].can_run][:3]
        if len(three) == 3:
            plans.append((*((solve, place) for place in three), (merge, voters[0])))
    return plans
