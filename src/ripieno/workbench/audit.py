"""Headroom: random < best single < one-step ceiling < search ceiling, before any training.

Ceilings are cross-fitted: plans are chosen on one half of the tasks and measured on the other, so that luck does not
count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.domain.grader import GradedTask
from ripieno.workbench.search import PlanResult, list_singles, search, try_plan
from ripieno.workbench.world import BenchPool, World

LEAST_HEADROOM = 0.08
"""Gap in accuracy between one step and search below which training a conductor is not worthwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Results that some pools can reach: accuracy, cost, reward, as means over pools, families and tasks."""

    random: tuple[float, float, float]
    single: tuple[float, float, float]
    """The best single worker of each pool, over all families, chosen on other tasks."""
    one_step: tuple[float, float, float]
    """The best worker of each pool and family, cross-fitted."""
    search: tuple[float, float, float]
    """The best plan of each pool and family, cross-fitted."""

    @property
    def headroom(self) -> float:
        """Return the accuracy that plans add to single steps."""
        return self.search[0] - self.one_step[0]

    @property
    def is_worth_training(self) -> bool:
        """Return whether the headroom is large enough for training."""
        return self.headroom >= LEAST_HEADROOM


def audit(
    world: World,
    pools: Sequence[BenchPool],
    *,
    split: str,
    tasks: int = 40,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Ladder:
    """Measure the ladder of some pools.

    Each family and pool has `tasks` tasks. One half chooses and the other measures, then the reverse.
    """
    rungs: dict[str, list[tuple[float, float, float]]] = {"random": [], "single": [], "one_step": [], "search": []}
    for place, pool in enumerate(pools):
        rng = np.random.default_rng([seed, place])
        halves = {family: _halve(world.tasks[split, family], tasks, rng) for family in world.families}
        for this, other in ((0, 1), (1, 0)):
            chosen = {family: halves[family][this] for family in world.families}
            measured = {family: halves[family][other] for family in world.families}
            for name, rung in _climb(world, pool, chosen, measured).items():
                rungs[name].append(rung)
        if on_progress is not None:
            on_progress(place + 1)
    means = {name: np.mean(values, axis=0) for name, values in rungs.items()}
    return Ladder(**{name: (float(m[0]), float(m[1]), float(m[2])) for name, m in means.items()})


def _climb(
    world: World, pool: BenchPool, chosen: dict[str, list[GradedTask]], measured: dict[str, list[GradedTask]]
) -> dict[str, tuple[float, float, float]]:
    singles = list_singles(pool)
    seen = {family: [try_plan(world, pool, plan, chosen[family]) for plan in singles] for family in chosen}
    then = {family: [try_plan(world, pool, plan, measured[family]) for plan in singles] for family in measured}
    usual = np.mean([[tried.right for tried in seen[family]] for family in seen], axis=0)
    best = int(np.argmax(usual))
    one_step = [then[family][int(np.argmax([tried.reward for tried in seen[family]]))] for family in seen]
    found: list[PlanResult] = []
    for family, tasks in chosen.items():
        plan = search(world, pool, tasks, first=max(len(tasks) // 3, 1))[0].plan
        found.append(try_plan(world, pool, plan, measured[family]))
    everyone = [tried for family in then for tried in then[family]]
    return {
        "random": _mean(everyone),
        "single": _mean([then[family][best] for family in then]),
        "one_step": _mean(one_step),
        "search": _mean(found),
    }


def _mean(tried: Sequence[PlanResult]) -> tuple[float, float, float]:
    return (
        float(np.mean([each.right for each in tried])),
        float(np.mean([each.cost for each in tried])),
        float(np.mean([each.reward for each in tried])),
    )


def _halve(
    tasks: Sequence[GradedTask], count: int, rng: np.random.Generator
) -> tuple[list[GradedTask], list[GradedTask]]:
    drawn = [tasks[index] for index in rng.permutation(len(tasks))[:count]]
    return drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
