"""Training the tiny conductor: taught by search, then by its own rollouts, then polished on what it writes in use.

Stages: soft targets of the best plans found (averaged outcomes, never a lucky single one), policy gradient with group
means as baseline (no reference policy, no division by a group's spread), and an evolution strategy on the output layers
with greedy decoding. Each stage is saved as it goes, and goes on where it was.

Source:
    Shao et al. (2024), GRPO; Liu et al. (2025), Understanding R1-Zero: no per-group standard deviation; Sakana AI,
    Conductor (arXiv 2512.04388) and Fugu (arXiv 2606.21228): soft supervision first, then RL or evolution, KL 0.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ripieno.conductor.policy import Cursor, Floats, Scene, TinyPolicy, list_choices
from ripieno.conductor.tiny import save_policy
from ripieno.domain.grader import GradedTask
from ripieno.errors import CheckpointError
from ripieno.evaluate.plots import plot_course
from ripieno.learn.lessons import Lesson, Quest, Reward, Told, draw_pools, find_lessons
from ripieno.plugins import require_extra
from ripieno.workbench.scenes import Stage, to_steps
from ripieno.workbench.world import BenchPool, World

ADVANTAGE_SCALE = 0.3
"""Spread of rewards, the same for all groups: a group's own spread would make noise of easy tasks loud."""
SAVE_EVERY = 25
LEAST_WEIGHT = 0.02
"""Of a plan that is taught."""
_POLISHED = ("action", "action_bias", "query", "taste")
"""Layers that the evolution strategy changes."""
LESSONS = "lessons.jsonl"
STAGES = ("search", "teach", "reinforce", "polish")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a conductor is trained."""

    seed: int = 0
    pools: int = 160
    search_tasks: int = 6
    """Of a family that propose plans; ten fresh ones rank them."""
    teach_steps: int = 1600
    reinforce_steps: int = 500
    tasks_a_step: int = 32
    rollouts: int = 16
    polish_generations: int = 30
    population: int = 32
    common_tasks: int = 128
    rate: float = 3e-3
    entropy: float = 0.003
    task_noise: float = 1.0
    """Length of the noise on a task's embedding, of which the length is one: other words for the same."""
    word_noise: float = 1.0
    """Length of the noise on a description's embedding."""
    decay: float = 1e-4
    """Share of the weights that each step takes away."""
    most_steps: int = 5
    """1 trains the one-step router with the same features and the same optimiser."""
    counts_cost: bool = True
    shuffles_pools: bool = True
    """Without, all tasks meet one pool: the ablation of pool randomisation."""


@dataclass(slots=True)
class Progress:
    """How far a training has come."""

    stage: str = "search"
    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float | str]] = field(default_factory=list)
    """What was seen on the way: stage, step, reward, share right, cost."""


class Training:
    """One training, from nothing or from where it was cut off.

    Args:
        world: tasks and workers.
        stage: encodes them.
        recipe: how it is trained.
        folder: where its state is kept.
        told: hears of progress.
    """

    def __init__(self, world: World, stage: Stage, recipe: Recipe, folder: Path, *, told: Told | None = None) -> None:
        self._world = world
        self._stage = stage
        self._recipe = self.recipe = recipe
        self.encoder_name = stage.encoder_name
        self._folder = folder
        self._told = told or (lambda *_: None)
        self._rng = np.random.default_rng(recipe.seed)
        self._reward = Reward(world=world, counts_cost=recipe.counts_cost)
        self.pools = draw_pools(world, seed=recipe.seed, count=recipe.pools if recipe.shuffles_pools else 1)
        self.policy = TinyPolicy.init(
            tasks=stage.task_size, words=stage.words_size, rng=self._rng, most_steps=recipe.most_steps
        )
        self._adam = Adam(self.policy.parameters, rate=recipe.rate, decay=recipe.decay)
        self.progress = Progress()
        self._lessons: list[Lesson] = []
        self._resume()

    def run(self) -> TinyPolicy:
        """Carry all stages to their end.

        Raises:
            MissingExtra: the library of the last stage is not installed; no stage was begun.
        """
        require_extra("conductor", "training a conductor", ("cma",))  # the last stage needs it, hours later
        began = time.monotonic() - self.progress.seconds
        stages = {"search": self._search, "teach": self._teach, "reinforce": self._reinforce, "polish": self._polish}
        for name in STAGES[STAGES.index(self.progress.stage) :]:
            if self.progress.stage != name:
                self.progress.stage, self.progress.step = name, 0
            stages[name]()
            self.progress.seconds = time.monotonic() - began
            self.save()
        return self.policy

    def save(self) -> None:
        """Write the state, whole."""
        self._folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"policy.{name}": value for name, value in self.policy.parameters.items()}
        tensors |= {f"first.{name}": value for name, value in self._adam.first.items()}
        tensors |= {f"second.{name}": value for name, value in self._adam.second.items()}
        part = self._folder / "state.part"
        save_file(tensors, part)
        facts = {
            "recipe": asdict(self._recipe),
            "progress": asdict(self.progress),
            "adam": self._adam.steps,
            "rng": self._rng.bit_generator.state,
        }
        (self._folder / "progress.part").write_text(json.dumps(facts))
        part.replace(self._folder / "state.safetensors")
        (self._folder / "progress.part").replace(self._folder / "progress.json")

    def _resume(self) -> None:
        path = self._folder / "progress.json"
        if not path.exists():
            return
        try:
            facts = json.loads(path.read_text())
            tensors = load_file(self._folder / "state.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"the training in {self._folder} cannot be gone on with: {error}") from error
        if facts["recipe"] != asdict(self._recipe):
            raise CheckpointError(
                f"the training in {self._folder} was begun with another recipe", hint="finish it, or remove the folder"
            )
        for name in self.policy.parameters:
            self.policy.parameters[name] = tensors[f"policy.{name}"].copy()
            self._adam.first[name] = tensors[f"first.{name}"].copy()
            self._adam.second[name] = tensors[f"second.{name}"].copy()
        self._adam.steps = facts["adam"]
        self._rng.bit_generator.state = facts["rng"]
        self.progress = Progress(**facts["progress"])

    def _search(self) -> None:
        """Find the best plans of each pool for each family, or read them where that is done."""
        recipe, count = self._recipe, len(self.pools)
        quest = Quest(
            seed=recipe.seed,
            tasks=recipe.search_tasks,
            counts_cost=recipe.counts_cost,
            most_steps=recipe.most_steps,
        )
        self._lessons = find_lessons(
            self._world,
            self.pools,
            self._folder / LESSONS,
            quest=quest,
            told=lambda done: self._told("search", done, count, ""),
        )
        self.progress.step = count

    def _teach(self) -> None:
        """Imitate the plans found, each by how good it is."""
        recipe = self._recipe
        if not self._lessons:
            done = self.progress.step
            self._search()
            self.progress.step = done
        for step in range(self.progress.step, recipe.teach_steps):
            chosen = [self._lessons[index] for index in self._rng.integers(len(self._lessons), size=48)]
            tasks = [_draw(self._world.tasks["train", lesson.family], 1, self._rng)[0] for lesson in chosen]
            taught = [
                (row, plan, weight / len(chosen))
                for row, lesson in enumerate(chosen)
                for plan, weight in zip(lesson.plans, lesson.weights, strict=True)
                if weight >= LEAST_WEIGHT
            ]
            scene = self._stage.make(tasks, [self.pools[lesson.pool] for lesson in chosen])
            self._ascend(self._blur(scene), taught)
            self._step_done("teach", step, recipe.teach_steps)

    def _reinforce(self) -> None:
        """Draw plans, and make those likelier that did better than others on the same task."""
        recipe = self._recipe
        for step in range(self.progress.step, recipe.reinforce_steps):
            tasks, pools = self._draw_tasks(recipe.tasks_a_step)
            scene = self._blur(self._stage.make(tasks, pools))
            scene = scene.select(np.repeat(np.arange(len(tasks)), recipe.rollouts))
            plans = self.policy.write(scene, rng=self._rng)
            places = np.arange(len(plans)) // recipe.rollouts
            earned = [
                self._reward.of_words(tasks[place], pools[place], tuple(plan))
                for place, plan in zip(places, plans, strict=True)
            ]
            rewards = np.array(earned).reshape(len(tasks), recipe.rollouts)
            advantages = ((rewards - rewards.mean(axis=1, keepdims=True)) / ADVANTAGE_SCALE).ravel()
            drawn = [(row, plan, advantages[row] / len(plans)) for row, plan in enumerate(plans)]
            entropy = recipe.entropy * (1.0 - step / recipe.reinforce_steps) / len(plans)
            self._ascend(scene, drawn, entropy=entropy)
            self._step_done("reinforce", step, recipe.reinforce_steps)

    def _polish(self) -> None:
        """Evolve the output layers on what greedy decoding brings, all candidates on the same tasks.

        Source:
            Ros & Hansen (2008), separable CMA-ES.
        """
        recipe = self._recipe
        if self.progress.step >= recipe.polish_generations:
            return
        import cma

        start = {name: self.policy.parameters[name].copy() for name in _POLISHED}
        options = {
            "CMA_diagonal": True,
            "popsize": recipe.population,
            "seed": recipe.seed + 1,
            "verbose": -9,
            "maxiter": recipe.polish_generations,
        }
        strategy = cma.CMAEvolutionStrategy(pack(start), 0.03, options)
        for generation in range(recipe.polish_generations):
            tasks, pools = self._draw_tasks(recipe.common_tasks)
            scene = self._stage.make(tasks, pools)
            candidates = strategy.ask()
            fitness = [self._greedy(unpack(each, start), scene, tasks, pools) for each in candidates]
            strategy.tell(candidates, [-value for value in fitness])
            self._told("polish", generation + 1, recipe.polish_generations, f"reward {np.mean(fitness):.3f}")
        tasks, pools = self._draw_tasks(8 * recipe.common_tasks)
        scene = self._stage.make(tasks, pools)
        before = self._greedy(start, scene, tasks, pools)
        after = unpack(strategy.result.xfavorite, start)
        if self._greedy(after, scene, tasks, pools) > before:
            self.policy.parameters.update(after)
        else:
            self.policy.parameters.update(start)
        self.progress.step = recipe.polish_generations

    def _blur(self, scene: Scene) -> Scene:
        recipe = self._recipe
        return blur(scene, tasks=recipe.task_noise, words=recipe.word_noise, rng=self._rng)

    def _greedy(
        self, layers: dict[str, Floats], scene: Scene, tasks: Sequence[GradedTask], pools: Sequence[BenchPool]
    ) -> float:
        policy = TinyPolicy(self.policy.parameters | layers, most_steps=self.policy.most_steps)
        plans = policy.write(scene)
        rewards = [
            self._reward.of_words(task, pool, tuple(plan)) for task, plan, pool in zip(tasks, plans, pools, strict=True)
        ]
        return float(np.mean(rewards))

    def _ascend(
        self,
        scene: Scene,
        plans: Sequence[tuple[int, Sequence[tuple[int, int]], float]],
        *,
        entropy: float = 0.0,
    ) -> None:
        """Make plans likelier by their weights.

        Args:
            scene: what they were written for.
            plans: row of the scene, plan and weight of each.
            entropy: weight of the entropy.
        """
        followed = [list_choices(plan, self._recipe.most_steps) for _, plan, _ in plans]
        lengths = [len(actions) for _, actions, _ in followed]
        cursor = Cursor(
            np.concatenate([each.step for each, _, _ in followed]),
            np.concatenate([each.action for each, _, _ in followed]),
            np.concatenate([each.worker for each, _, _ in followed]),
        )
        seen = self.policy.look(scene.select(np.repeat([row for row, _, _ in plans], lengths)), cursor)
        gradient, _ = self.policy.gradient(
            seen,
            np.concatenate([actions for _, actions, _ in followed]),
            np.concatenate([workers for _, _, workers in followed]),
            np.repeat([weight for _, _, weight in plans], lengths),
            entropy=entropy,
        )
        self._adam.ascend(self.policy.parameters, gradient)

    def _step_done(self, stage: str, step: int, steps: int) -> None:
        self.progress.step = step + 1
        said = ""
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            seen = self._look_at(128)
            self.progress.curve.append({"stage": stage, "step": step + 1, **seen})
            said = f"reward {seen['reward']:.3f}, right {seen['right']:.3f}"
            self.save()
        self._told(stage, step + 1, steps, said)

    def _look_at(self, count: int) -> dict[str, float]:
        """How greedy decoding does now, on tasks and pools of training."""
        rng = np.random.default_rng([self._recipe.seed, 3])
        tasks, pools = self._draw_tasks(count, rng=rng)
        plans = self.policy.write(self._stage.make(tasks, pools))
        outcomes = [
            self._world.run(task, to_steps(plan), pool) for task, plan, pool in zip(tasks, plans, pools, strict=True)
        ]
        return {
            "reward": float(np.mean([outcome.reward for outcome in outcomes])),
            "right": float(np.mean([outcome.is_right for outcome in outcomes])),
            "cost": float(np.mean([outcome.cost for outcome in outcomes])),
            "steps": float(np.mean([outcome.steps for outcome in outcomes])),
        }

    def _draw_tasks(
        self, count: int, *, rng: np.random.Generator | None = None
    ) -> tuple[list[GradedTask], list[BenchPool]]:
        rng = rng or self._rng
        families = [self._world.families[index] for index in rng.integers(len(self._world.families), size=count)]
        tasks = [_draw(self._world.tasks["train", family], 1, rng)[0] for family in families]
        return tasks, [self.pools[index] for index in rng.integers(len(self.pools), size=count)]


def blur(scene: Scene, *, tasks: float, words: float, rng: np.random.Generator) -> Scene:
    """The scene as other words would have made it: noise of some length on the embeddings of tasks and descriptions."""
    size = scene.words.shape[2]
    blurred = scene.tasks.copy()
    blurred[:, :size] += tasks / np.sqrt(size) * rng.normal(size=(len(blurred), size))
    noise = words / np.sqrt(size) * rng.normal(size=scene.words.shape)
    return Scene(blurred, scene.words + noise * scene.present[:, :, None], scene.numbers, scene.present)


def finish(training: Training, path: Path, *, name: str) -> TinyPolicy:
    """Save a finished training's policy with its card."""
    last = training.progress.curve[-1] if training.progress.curve else {}
    card = {
        "name": name,
        "recipe": asdict(training.recipe),
        "parameters": training.policy.size,
        "seconds": training.progress.seconds,
        "seen_at_the_end": last,
        "trained_on": "the workbench: ten families of computed tasks; exact tools, faulty clones, generalists",
        "limits": "plans see no results while they are written; families beyond the workbench's are untried",
    }
    save_policy(path, training.policy, encoder=training.encoder_name, card=card)
    draw_curve(path.with_suffix(".svg"), training.progress.curve, title=name)
    return training.policy


def draw_curve(path: Path, curve: Sequence[Mapping[str, float | str]], *, title: str) -> None:
    """Draw reward and share right over the steps of all stages; a training without a point has no picture."""
    starts = [
        place for place, point in enumerate(curve, start=1) if place > 1 and point["stage"] != curve[place - 2]["stage"]
    ]
    if curve:
        lines = {key: [float(point[key]) for point in curve] for key in ("right", "reward")}
        plot_course(path, lines, title=title, stages=starts, x=f"each point is {SAVE_EVERY} steps")


class Adam:
    """Ascent with running moments.

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
        """One step, in place."""
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


def _draw(tasks: Sequence[GradedTask], count: int, rng: np.random.Generator) -> list[GradedTask]:
    if count == 1:
        return [tasks[int(rng.integers(len(tasks)))]]
    return [tasks[index] for index in rng.permutation(len(tasks))[:count]]


def pack(layers: dict[str, Floats]) -> Floats:
    """Arrays as one vector, in their order."""
    return np.concatenate([value.ravel() for value in layers.values()])


def unpack(flat: Floats, like: dict[str, Floats]) -> dict[str, Floats]:
    """A vector as arrays of the forms, and in the order, of others."""
    found, start = {}, 0
    for name, value in like.items():
        found[name] = np.asarray(flat[start : start + value.size]).reshape(value.shape)
        start += value.size
    return found
