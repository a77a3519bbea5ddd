"""Training of the turn-level head, by evolution on the reward of greedy choices, on top of the frozen tiny policy.

Source:
    TRINITY (arXiv 2512.04695): separable CMA-ES over a small head; Ros & Hansen (2008).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ripieno.conductor.policy import TinyPolicy
from ripieno.conductor.turns import TurnPolicy
from ripieno.learn.lessons import OnProgress, Reward, draw_pools, draw_tasks
from ripieno.learn.optimise import blur, evolve, load_state, pack, save_state, unpack
from ripieno.plugins import require_extra
from ripieno.workbench.scenes import Stage
from ripieno.workbench.turns import find_outcomes, play

SAVE_EVERY = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecipe:
    """Settings of one training of a head."""

    seed: int = 0
    pools: int = 160
    generations: int = 240
    population: int = 24
    common_tasks: int = 192
    """Tasks on which all candidates of a generation are measured."""
    spread: float = 0.15
    """Standard deviation of the first candidates."""
    noise: float = 1.0
    """Length of the noise on embeddings, because the base knows the phrasings of training better than others."""
    checked_tasks: int = 4096
    """Tasks on which the trained head is compared with none."""


def train_turns(
    stage: Stage, base: TinyPolicy, recipe: TurnRecipe, folder: Path, *, on_progress: OnProgress
) -> TurnPolicy:
    """Evolve a head. Return the initial head if the trained one gains nothing on fresh tasks.

    An interrupted training resumes from its mean.

    Raises:
        CheckpointError: the folder holds a training of another recipe.
    """
    require_extra("conductor", "training the turn-level head", ("cma",))
    policy = TurnPolicy.init(base)
    like = {name: policy.head[name] for name in sorted(policy.head)}
    flat, spread, done = pack(like), recipe.spread, 0
    found = load_state(folder, recipe)
    if found is not None:
        flat, spread, done = found[0]["mean"], float(found[0]["spread"][0]), int(found[0]["done"][0])
    measure = _make_measure(stage, recipe)
    generations = evolve(
        flat,
        lambda candidates, place: measure([TurnPolicy(base, unpack(each, like)) for each in candidates], place),
        spread=spread,
        seed=recipe.seed + 1 + done,
        population=recipe.population,
        generations=range(done, recipe.generations),
    )
    for place, reward, strategy in generations:
        on_progress("evolve", place, recipe.generations, f"reward {reward:.3f}")
        if place % SAVE_EVERY == 0 or place == recipe.generations:
            flat = np.asarray(strategy.mean)
            arrays = {"mean": flat, "spread": np.array([float(strategy.sigma)]), "done": np.array([place])}
            save_state(folder, recipe, arrays, {})
    trained = TurnPolicy(base, unpack(flat, like))
    before, after = measure([policy, trained], -1)
    seen = f"reward {before:.3f} without, {after:.3f} with the head"
    on_progress("evolve", recipe.generations, recipe.generations, seen)
    return trained if after > before else policy


def _make_measure(stage: Stage, recipe: TurnRecipe) -> Callable[[list[TurnPolicy], int], list[float]]:
    """Make the function that measures the policies of a generation on the same tasks. Generation -1 has more tasks."""
    reward = Reward(world=stage.world)
    drawn = draw_pools(stage.world, seed=recipe.seed, count=recipe.pools)

    def measure(policies: list[TurnPolicy], generation: int) -> list[float]:
        rng = np.random.default_rng([recipe.seed, 41, generation + 1])
        count = recipe.checked_tasks if generation < 0 else recipe.common_tasks
        tasks, pools = draw_tasks(stage.world, drawn, count, rng)
        scene = blur(stage.make(tasks, pools), tasks=recipe.noise, words=recipe.noise, rng=rng)
        runs = [find_outcomes(stage.world, play(policy, stage, scene, tasks, pools)) for policy in policies]
        return [float(np.mean([reward.of_outcome(each) for each in outcomes])) for outcomes in runs]

    return measure
