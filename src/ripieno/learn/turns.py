"""Training the turn-level head: evolved on what greedy choice brings, the frozen tiny policy beneath it.

Source:
    TRINITY (arXiv 2512.04695): separable CMA-ES over a small head; Ros & Hansen (2008).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ripieno.conductor.policy import Floats, TinyPolicy
from ripieno.conductor.turns import TurnPolicy
from ripieno.errors import CheckpointError
from ripieno.learn.conductor import blur, pack, unpack
from ripieno.learn.lessons import Reward, Told, draw_pools
from ripieno.plugins import needs_extra
from ripieno.workbench.scenes import Stage
from ripieno.workbench.turns import find_outcomes, play

SAVE_EVERY = 10
_STATE, _FACTS = "state.safetensors", "progress.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecipe:
    """How a head is trained."""

    seed: int = 0
    pools: int = 160
    generations: int = 240
    population: int = 24
    common_tasks: int = 192
    """On which all candidates of a generation are tried."""
    spread: float = 0.15
    """Of the first candidates."""
    noise: float = 1.0
    """Length of the noise on embeddings: the base knows training's words by heart, and those of others less well."""
    checked_tasks: int = 4096
    """On which the head is held against none at the end."""


def train_turns(stage: Stage, base: TinyPolicy, recipe: TurnRecipe, folder: Path, *, told: Told) -> TurnPolicy:
    """Evolve a head; one that brings nothing on fresh tasks is left at zero. A training cut off goes on from its mean.

    Raises:
        CheckpointError: the folder holds a training of another recipe.
    """
    with needs_extra("conductor", "training the turn-level head"):
        import cma

    policy = TurnPolicy.init(base)
    like = {name: policy.head[name] for name in sorted(policy.head)}
    flat, spread, done = _resume(folder, recipe, pack(like))
    course = _Course(stage, recipe)
    options = {"CMA_diagonal": True, "popsize": recipe.population, "verbose": -9, "maxiter": recipe.generations}
    strategy = cma.CMAEvolutionStrategy(flat, spread, options | {"seed": recipe.seed + 1 + done})
    for generation in range(done, recipe.generations):
        candidates = strategy.ask()
        fitness = course.measure([TurnPolicy(base, unpack(each, like)) for each in candidates], generation)
        strategy.tell(candidates, [-value for value in fitness])
        told("evolve", generation + 1, recipe.generations, f"reward {np.mean(fitness):.3f}")
        if (generation + 1) % SAVE_EVERY == 0 or generation + 1 == recipe.generations:
            _save(folder, recipe, np.asarray(strategy.mean), float(strategy.sigma), generation + 1)
            flat = np.asarray(strategy.mean)
    trained = TurnPolicy(base, unpack(flat, like))
    before, after = course.measure([policy, trained], -1)
    told("evolve", recipe.generations, recipe.generations, f"reward {before:.3f} without, {after:.3f} with the head")
    return trained if after > before else policy


class _Course:
    """Draws the tasks on which candidates are tried."""

    def __init__(self, stage: Stage, recipe: TurnRecipe) -> None:
        self._stage = stage
        self._recipe = recipe
        self._reward = Reward(world=stage.world)
        self._pools = draw_pools(stage.world, seed=recipe.seed, count=recipe.pools)

    def measure(self, policies: list[TurnPolicy], generation: int) -> list[float]:
        """Mean reward of each, all on the same tasks; those of generation -1 are many."""
        recipe, world = self._recipe, self._stage.world
        rng = np.random.default_rng([recipe.seed, 41, generation + 1])
        count = recipe.checked_tasks if generation < 0 else recipe.common_tasks
        families = [world.families[index] for index in rng.integers(len(world.families), size=count)]
        listed = [world.tasks["train", family] for family in families]
        tasks = [each[int(rng.integers(len(each)))] for each in listed]
        pools = [self._pools[index] for index in rng.integers(len(self._pools), size=count)]
        scene = blur(self._stage.make(tasks, pools), tasks=recipe.noise, words=recipe.noise, rng=rng)
        found = []
        for policy in policies:
            outcomes = find_outcomes(world, play(policy, self._stage, scene, tasks, pools))
            found.append(float(np.mean([self._reward.of_outcome(each) for each in outcomes])))
        return found


def _save(folder: Path, recipe: TurnRecipe, flat: Floats, spread: float, done: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "state.part"
    save_file({"mean": flat, "spread": np.array([spread]), "done": np.array([done])}, part)
    (folder / _FACTS).write_text(json.dumps(asdict(recipe)))
    part.replace(folder / _STATE)


def _resume(folder: Path, recipe: TurnRecipe, start: Floats) -> tuple[Floats, float, int]:
    path = folder / _STATE
    if not path.exists():
        return start, recipe.spread, 0
    try:
        state, facts = load_file(path), json.loads((folder / _FACTS).read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"the training in {folder} cannot be gone on with: {error}") from error
    if facts != asdict(recipe):
        raise CheckpointError(
            f"the training in {folder} was begun with another recipe", hint="finish it, or remove the folder"
        )
    return state["mean"], float(state["spread"][0]), int(state["done"][0])
