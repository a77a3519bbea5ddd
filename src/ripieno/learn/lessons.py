"""Lessons and reward: the one data file that conductors of every size are taught from, and the one thing they earn."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ripieno.conductor import Roster, parse_json, parse_text
from ripieno.conductor.grammar import name_source
from ripieno.conductor.policy import ACTIONS
from ripieno.conductor.tiny import describe_plan
from ripieno.domain import Op
from ripieno.domain.grader import GradedTask
from ripieno.domain.workflow import MOST_STEPS
from ripieno.errors import DataError, InvalidPlan
from ripieno.privacy.files import make_folder, make_private
from ripieno.workbench.scenes import SOURCES, make_roster, read_plan, to_steps
from ripieno.workbench.search import Words, search
from ripieno.workbench.world import UNREADABLE_PRICE, BenchOutcome, BenchPool, World

SOFTNESS = 0.05
"""Temperature of the soft targets, in reward."""
TAUGHT = 3
"""Plans of a cell that are taught."""
FRESH_TASKS = 10
"""Of a family, on which proposed plans are ranked: never those that proposed them."""

Told: TypeAlias = Callable[[str, int, int, str], None]
"""Told the stage of a training, the step, how many there are, and what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """The best plans of one pool for one family, with how much each is to be imitated."""

    pool: int
    family: str
    plans: tuple[Words, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """What a plan earns, whoever wrote it, and in whichever surface.

    Args:
        world: carries it out.
        counts_cost: whether its price counts.
    """

    world: World
    counts_cost: bool = True

    def of_outcome(self, outcome: BenchOutcome) -> float:
        """What an outcome is worth."""
        return outcome.reward if self.counts_cost else float(outcome.is_right)

    def of_words(self, task: GradedTask, pool: BenchPool, plan: Words) -> float:
        """What a plan in the tiny policy's words is worth on a task."""
        return self.of_outcome(self.world.run(task, to_steps(plan), pool))

    def of_json(self, task: GradedTask, pool: BenchPool, text: str) -> float:
        """What a language model's plan is worth; what is no plan costs."""
        try:
            plan = parse_json(text, make_roster([worker.can_run for worker in pool.workers]))
        except InvalidPlan:
            return -UNREADABLE_PRICE
        return self.of_outcome(self.world.run(task, read_plan(plan), pool))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quest:
    """What is looked for in a search."""

    seed: int
    """Draws the tasks."""
    tasks: int
    """Of each family that propose plans."""
    counts_cost: bool = True
    most_steps: int = MOST_STEPS


def draw_pools(world: World, *, seed: int, count: int) -> list[BenchPool]:
    """The pools of a training: the same for every size of conductor."""
    rng = np.random.default_rng([seed, 1])
    return [world.draw_pool("train", rng) for _ in range(count)]


def find_lessons(
    world: World,
    pools: Sequence[BenchPool],
    path: Path,
    *,
    quest: Quest,
    told: Callable[[int], None] | None = None,
) -> list[Lesson]:
    """Search the best plans of each pool for each family, into a file; one that was cut off goes on.

    Args:
        world: where plans are tried.
        pools: the workers.
        path: of the file.
        quest: what is looked for.
        told: hears how many pools are done.
    """
    found = read_lessons(path) if path.exists() else []
    found = [lesson for lesson in found if lesson.pool < len(pools)]
    make_folder(path.parent)
    done = len(found) // len(world.families)
    found = found[: done * len(world.families)]
    with make_private(path).open("w", encoding="utf-8") as file:
        for lesson in found:
            file.write(_dump(lesson, pools[lesson.pool]) + "\n")
        for place in range(done, len(pools)):
            rng = np.random.default_rng([quest.seed, 2, place])
            for family in world.families:
                listed = world.tasks["train", family]
                drawn = [listed[index] for index in rng.permutation(len(listed))[: quest.tasks + FRESH_TASKS]]
                plans, weights = _rank(world, pools[place], drawn, quest)
                lesson = Lesson(pool=place, family=family, plans=plans, weights=weights)
                found.append(lesson)
                file.write(_dump(lesson, pools[place]) + "\n")
            file.flush()
            os.fsync(file.fileno())
            if told is not None:
                told(place + 1)
    return found


def read_lessons(path: Path) -> list[Lesson]:
    """Read lessons; a line that was cut short by the end of a process is passed over.

    Raises:
        DataError: a line before the last one is none.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_load(json.loads(line)))
        except (ValueError, KeyError, TypeError, InvalidPlan) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise DataError(f"no lesson: {error}", path=str(path), place=f"line {number}") from error
    return found


def tell_json(plan: Words) -> str:
    """A plan in the words of a language model."""
    steps = [
        {"worker": worker, "op": ACTIONS[action][0].value, "source": list(SOURCES)[ACTIONS[action][1]]}
        for action, worker in plan
    ]
    return json.dumps({"steps": steps}, separators=(",", ":"))


def _rank(
    world: World, pool: BenchPool, tasks: Sequence[GradedTask], quest: Quest
) -> tuple[tuple[Words, ...], tuple[float, ...]]:
    """The best plans on fresh tasks, and how much each is to be imitated."""
    tried = [found for found in search(world, pool, tasks, first=quest.tasks) if len(found.plan) <= quest.most_steps]
    best = tried[:TAUGHT]
    rewards = np.array([found.reward if quest.counts_cost else found.right for found in best])
    weights = np.exp((rewards - rewards.max()) / SOFTNESS)
    return tuple(found.plan for found in best), tuple((weights / weights.sum()).tolist())


def _dump(lesson: Lesson, pool: BenchPool) -> str:
    plans = [
        {"words": describe_plan(plan), "json": tell_json(plan), "weight": weight}
        for plan, weight in zip(lesson.plans, lesson.weights, strict=True)
    ]
    runs = [worker.can_run for worker in pool.workers]
    return json.dumps({"pool": lesson.pool, "family": lesson.family, "runs": runs, "plans": plans})


def _load(raw: dict[str, object]) -> Lesson:
    roster = make_roster([bool(run) for run in _list(raw["runs"])])
    listed = [dict(each) for each in _list(raw["plans"])]
    return Lesson(
        pool=int(str(raw["pool"])),
        family=str(raw["family"]),
        plans=tuple(_read_words(str(each["words"]), roster) for each in listed),
        weights=tuple(float(each["weight"]) for each in listed),
    )


def _read_words(text: str, roster: Roster) -> Words:
    known = {pair: place for place, pair in enumerate(ACTIONS)}
    plan = parse_text(text, roster)
    return tuple(
        (known[Op(step.op), SOURCES[name_source(step, place).value]], int(step.worker))
        for place, step in enumerate(plan.steps)
    )


def _list(value: object) -> list[dict[str, float]]:
    if not isinstance(value, list):
        raise TypeError(f"a list is wanted, got {value!r}")
    return value
