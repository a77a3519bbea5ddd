"""Optimisation of conductors: gradient ascent, evolution, noise on scenes, and the state of an interrupted training."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ripieno.conductor.policy import Cursor, Floats, Scene, TinyPolicy, list_choices
from ripieno.errors import CheckpointError
from ripieno.plugins import require_extra

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_STATE, _FACTS = "state.safetensors", "progress.json"


class Adam:
    """Gradient ascent with running moments.

    Source:
        Kingma & Ba (2015).
    """

    def __init__(self, parameters: dict[str, Floats], *, rate: float, decay: float = 0.0) -> None:
        self.rate = rate
        self.decay = decay
        self.steps = 0
        self.first = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: np.zeros_like(value) for name, value in parameters.items()}

    def ascend(self, parameters: dict[str, Floats], gradient: dict[str, Floats]) -> None:
        """Change the parameters by one step, in place."""
        self.steps += 1
        norm = np.sqrt(sum(float((value**2).sum()) for value in gradient.values()))
        scale = min(1.0, 1.0 / max(norm, 1e-12))
        for name, value in gradient.items():
            self.first[name] = 0.9 * self.first[name] + 0.1 * scale * value
            self.second[name] = 0.999 * self.second[name] + 0.001 * (scale * value) ** 2
            mean = self.first[name] / (1.0 - 0.9**self.steps)
            spread = np.sqrt(self.second[name] / (1.0 - 0.999**self.steps))
            kept = (1.0 - self.decay) * parameters[name]
            parameters[name] = kept + self.rate * mean / (spread + 1e-8)


def raise_plans(
    policy: TinyPolicy,
    adam: Adam,
    scene: Scene,
    plans: Sequence[tuple[int, Sequence[tuple[int, int]], float]],
    *,
    entropy: float = 0.0,
) -> None:
    """Raise the probability of plans by their weights, in one step.

    Each plan comes with its row of the scene, and its weight.
    """
    followed = [list_choices(plan, policy.most_steps) for _, plan, _ in plans]
    lengths = [len(actions) for _, actions, _ in followed]
    cursor = Cursor(
        np.concatenate([each.step for each, _, _ in followed]),
        np.concatenate([each.action for each, _, _ in followed]),
        np.concatenate([each.worker for each, _, _ in followed]),
    )
    seen = policy.look(scene.select(np.repeat([row for row, _, _ in plans], lengths)), cursor)
    gradient, _ = policy.gradient(
        seen,
        np.concatenate([actions for _, actions, _ in followed]),
        np.concatenate([workers for _, _, workers in followed]),
        np.repeat([weight for _, _, weight in plans], lengths),
        entropy=entropy,
    )
    adam.ascend(policy.parameters, gradient)


def evolve(
    start: Floats,
    measure: Callable[[list[Floats], int], list[float]],
    *,
    spread: float,
    seed: int,
    population: int,
    generations: range,
) -> Iterator[tuple[int, float, Any]]:
    """Evolve a vector. Yield the finished generations, their mean fitness, and the strategy of `cma`.

    `start` and `spread` are the first mean and standard deviation. `measure` returns the fitness of each candidate.

    Source:
        Ros & Hansen (2008), separable CMA-ES.
    """
    require_extra("conductor", "evolving a policy", ("cma",))
    import cma

    options = {"CMA_diagonal": True, "popsize": population, "seed": seed, "verbose": -9, "maxiter": generations.stop}
    strategy = cma.CMAEvolutionStrategy(start, spread, options)
    for generation in generations:
        candidates = strategy.ask()
        fitness = measure(candidates, generation)
        strategy.tell(candidates, [-value for value in fitness])
        yield generation + 1, float(np.mean(fitness)), strategy


def blur(scene: Scene, *, tasks: float, words: float, rng: np.random.Generator) -> Scene:
    """Add noise of some length to the embeddings of tasks and descriptions. It stands for other phrasings."""
    size = scene.words.shape[2]
    blurred = scene.tasks.copy()
    blurred[:, :size] += tasks / np.sqrt(size) * rng.normal(size=(len(blurred), size))
    noise = words / np.sqrt(size) * rng.normal(size=scene.words.shape)
    return Scene(blurred, scene.words + noise * scene.present[:, :, None], scene.numbers, scene.present)


def pack(layers: Mapping[str, Floats]) -> Floats:
    """Join arrays into one vector, in their order."""
    return np.concatenate([value.ravel() for value in layers.values()])


def unpack(flat: Floats, like: Mapping[str, Floats]) -> dict[str, Floats]:
    """Split a vector into arrays of the shapes and the order of others."""
    ends = np.cumsum([value.size for value in like.values()])[:-1]
    parts: Sequence[Floats] = np.split(np.asarray(flat), ends)
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}


def save_state(
    folder: Path, recipe: "DataclassInstance", arrays: Mapping[str, Floats], facts: Mapping[str, object]
) -> None:
    """Write the state of a training that can be interrupted, each file whole."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(arrays), folder / "state.part")
    (folder / "progress.part").write_text(json.dumps({"recipe": asdict(recipe), **facts}))
    (folder / "state.part").replace(folder / _STATE)
    (folder / "progress.part").replace(folder / _FACTS)


def load_state(folder: Path, recipe: "DataclassInstance") -> tuple[dict[str, Floats], dict[str, Any]] | None:
    """Read the state of a training; None if there is none.

    Raises:
        CheckpointError: the state is damaged, or belongs to another recipe.
    """
    if not (folder / _FACTS).exists():
        return None
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS).read_text())
        arrays = load_file(folder / _STATE)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"the training in {folder} cannot be resumed: {error}") from error
    if facts.get("recipe", facts) != asdict(recipe):  # earlier heads of turns kept nothing but the recipe
        raise CheckpointError(
            f"the training in {folder} was started with another recipe", hint="finish it, or remove the folder"
        )
    return arrays, facts
