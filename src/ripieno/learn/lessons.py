"""Lessons and reward: the data file that teaches conductors of every size, and the reward of their plans."""

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
"""Temperature of the weights, in reward."""
TAUGHT = 3
"""Plans of each pool and family that are taught."""
FRESH_TASKS = 10
"""Tasks of a family that rank the proposed plans. They never propose plans."""

OnProgress: TypeAlias = Callable[[str, int, int, str], None]
"""Receives the stage of a training, the step, the number of steps, and a result in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """The best plans of one pool for one family, with their weights in the imitation."""

    pool: int
    family: str
    plans: tuple[Words, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """Reward of a plan, the same for both of its forms."""

    world: World
    counts_cost: bool = True

    def of_outcome(self, outcome: BenchOutcome) -> float:
        """Return the reward of an outcome."""
        return outcome.reward if self.counts_cost else float(outcome.is_right)

    def of_words(self, task: GradedTask, pool: BenchPool, plan: Words) -> float:
        """Return the reward of a plan in the tiny policy's words."""
        return self.of_outcome(self.world.run(task, to_steps(plan), pool))

    def of_json(self, task: GradedTask, pool: BenchPool, text: str) -> float:
        """Return the reward of a language model's plan; a negative one if the text is no plan."""
        try:
            plan = parse_json(text, make_roster([worker.can_run for worker in pool.workers]))
        except InvalidPlan:
            return -UNREADABLE_PRICE
        return self.of_outcome(self.world.run(task, read_plan(plan), pool))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quest:
    """Settings of a search."""

    seed: int
    """Seed of the tasks."""
    tasks: int
    """Tasks of each family that propose plans."""
    counts_cost: bool = True
    most_steps: int = MOST_STEPS


def draw_pools(world: World, *, seed: int, count: int) -> list[BenchPool]:
    """Draw the pools of a training, the same for every size of conductor."""
    rng = np.random.default_rng([seed, 1])
    return [world.draw_pool("train", rng) for _ in range(count)]


def draw_task(world: World, family: str, rng: np.random.Generator) -> GradedTask:
    """Draw one training task of a family."""
    listed = world.tasks["train", family]
    return listed[int(rng.integers(len(listed)))]


def draw_tasks(
    world: World, pools: Sequence[BenchPool], count: int, rng: np.random.Generator
) -> tuple[list[GradedTask], list[BenchPool]]:
    """Draw training tasks of random families, each with a random pool."""
    families = [world.families[index] for index in rng.integers(len(world.families), size=count)]
    tasks = [draw_task(world, family, rng) for family in families]
    return tasks, [pools[index] for index in rng.integers(len(pools), size=count)]


def find_lessons(
    world: World,
    pools: Sequence[BenchPool],
    path: Path,
    *,
    quest: Quest,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Lesson]:
    """Search the best plans of each pool for each family, and write them to a file. An interrupted search resumes."""
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
            on_progress(place + 1)
    return found


def read_lessons(path: Path) -> list[Lesson]:
    """Read lessons. A last line that an interruption cut off is skipped.

    Raises:
        DataError: another line is no lesson.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_load(json.loads(line)))
        except (ValueError, KeyError, TypeError, InvalidPlan) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise DataError(f"not a lesson: {error}", path=str(path), place=f"line {number}") from error
    return found


def dump_json(plan: Words) -> str:
    """Write a plan in the form of a language model."""
    steps = [
        {"worker": worker, "op": ACTIONS[action][0].value, "source": list(SOURCES)[ACTIONS[action][1]]}
        for action, worker in plan
    ]
    return json.dumps({"steps": steps}, separators=(",", ":"))


def _rank(
    world: World, pool: BenchPool, tasks: Sequence[GradedTask], quest: Quest
) -> tuple[tuple[Words, ...], tuple[float, ...]]:
    """Return the best plans on fresh tasks, and their weights."""
    tried = [found for found in search(world, pool, tasks, first=quest.tasks) if len(found.plan) <= quest.most_steps]
    best = tried[:TAUGHT]
    rewards = np.array([found.reward if quest.counts_cost else found.right for found in best])
    weights = np.exp((rewards - rewards.max()) / SOFTNESS)
    return tuple(found.plan for found in best), tuple((weights / weights.sum()).tolist())


def _dump(lesson: Lesson, pool: BenchPool) -> str:
    plans = [
        {"words": describe_plan(plan), "json": dump_json(plan), "weight": weight}
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
        raise TypeError(f"must be a list, got {value!r}")
    return value
