"""Training of the tiny conductor, in stages: imitation of searched plans, policy gradient, evolution of its output.

The targets of imitation are the best plans found, weighted by their averaged outcomes. The policy gradient uses group
means as baseline, without a reference policy and without division by a group's spread. The evolution strategy changes
the output layers, with greedy decoding. Each stage is saved while it runs, and resumes after an interruption.

Source:
    Shao et al. (2024), GRPO; Liu et al. (2025), Understanding R1-Zero: no per-group standard deviation; Sakana AI,
    Conductor (arXiv 2512.04388) and Fugu (arXiv 2606.21228): soft supervision first, then RL or evolution, KL 0.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ripieno.conductor.policy import Floats, Scene, TinyPolicy
from ripieno.conductor.tiny import save_policy
from ripieno.domain.grader import GradedTask
from ripieno.evaluate.conductor import mean_outcomes
from ripieno.evaluate.plots import plot_course
from ripieno.learn.lessons import Lesson, OnProgress, Quest, Reward, draw_pools, draw_task, draw_tasks, find_lessons
from ripieno.learn.optimise import Adam, blur, evolve, load_state, pack, raise_plans, save_state, unpack
from ripieno.plugins import require_extra
from ripieno.workbench.scenes import Stage, to_steps
from ripieno.workbench.world import BenchPool

ADVANTAGE_SCALE = 0.3
"""Spread of rewards, the same for all groups. A group's own spread would amplify noise on easy tasks."""
SAVE_EVERY = 25
LEAST_WEIGHT = 0.02
"""Least weight of a plan that is taught."""
_POLISHED = ("action", "action_bias", "query", "taste")
"""Layers that the evolution strategy changes."""
LESSONS = "lessons.jsonl"
STAGES = ("search", "teach", "reinforce", "polish")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConductorRecipe:
    """Settings of one training of a conductor."""

    seed: int = 0
    pools: int = 160
    search_tasks: int = 6
    """Tasks of a family that propose plans; ten fresh ones rank them."""
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
    """Length of the noise on a task's embedding, whose length is 1. It stands for other phrasings."""
    word_noise: float = 1.0
    """Length of the noise on a description's embedding."""
    decay: float = 1e-4
    """Share of the weights that each step removes."""
    most_steps: int = 5
    """1 trains the one-step router with the same features and the same optimiser."""
    counts_cost: bool = True
    shuffles_pools: bool = True
    """False gives all tasks one pool: the ablation of pool randomisation."""


@dataclass(slots=True)
class Progress:
    """Position of a training."""

    stage: str = "search"
    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float | str]] = field(default_factory=list)
    """Stage, step, reward, share right and cost at regular steps."""


class Training:
    """One training. It resumes from its folder."""

    def __init__(
        self,
        stage: Stage,
        recipe: ConductorRecipe,
        folder: Path,
        *,
        on_progress: OnProgress = lambda stage, step, steps, seen: None,
    ) -> None:
        self._world = stage.world
        self._stage = stage
        self.recipe = recipe
        self.encoder_name = stage.encoder_name
        self._folder = folder
        self._on_progress = on_progress
        self._rng = np.random.default_rng(recipe.seed)
        self._reward = Reward(world=stage.world, counts_cost=recipe.counts_cost)
        self.pools = draw_pools(stage.world, seed=recipe.seed, count=recipe.pools if recipe.shuffles_pools else 1)
        self.policy = TinyPolicy.init(
            tasks=stage.task_size, words=stage.words_size, rng=self._rng, most_steps=recipe.most_steps
        )
        self._adam = Adam(self.policy.parameters, rate=recipe.rate, decay=recipe.decay)
        self.progress = Progress()
        self._lessons: list[Lesson] = []
        self._resume()

    def run(self) -> TinyPolicy:
        """Run all stages to their end.

        Raises:
            MissingExtra: the library of the last stage is not installed. No stage has started.
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
        groups = {"policy": self.policy.parameters, "first": self._adam.first, "second": self._adam.second}
        tensors = {f"{group}.{name}": value for group, arrays in groups.items() for name, value in arrays.items()}
        facts = {
            "progress": asdict(self.progress),
            "adam": self._adam.steps,
            "rng": self._rng.bit_generator.state,
        }
        save_state(self._folder, self.recipe, tensors, facts)

    def _resume(self) -> None:
        found = load_state(self._folder, self.recipe)
        if found is None:
            return
        tensors, facts = found
        for name in self.policy.parameters:
            self.policy.parameters[name] = tensors[f"policy.{name}"].copy()
            self._adam.first[name] = tensors[f"first.{name}"].copy()
            self._adam.second[name] = tensors[f"second.{name}"].copy()
        self._adam.steps = facts["adam"]
        self._rng.bit_generator.state = facts["rng"]
        self.progress = Progress(**facts["progress"])

    def _search(self) -> None:
        """Find the best plans of each pool for each family, or read them from the folder."""
        recipe, count = self.recipe, len(self.pools)
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
            on_progress=lambda done: self._on_progress("search", done, count, ""),
        )
        self.progress.step = count

    def _teach(self) -> None:
        """Imitate the plans found, weighted by their results."""
        recipe = self.recipe
        if not self._lessons:
            done = self.progress.step
            self._search()
            self.progress.step = done
        for step in range(self.progress.step, recipe.teach_steps):
            chosen = [self._lessons[index] for index in self._rng.integers(len(self._lessons), size=48)]
            tasks = [draw_task(self._world, lesson.family, self._rng) for lesson in chosen]
            taught = [
                (row, plan, weight / len(chosen))
                for row, lesson in enumerate(chosen)
                for plan, weight in zip(lesson.plans, lesson.weights, strict=True)
                if weight >= LEAST_WEIGHT
            ]
            scene = self._stage.make(tasks, [self.pools[lesson.pool] for lesson in chosen])
            raise_plans(self.policy, self._adam, self._blur(scene), taught)
            self._end_step("teach", step, recipe.teach_steps)

    def _reinforce(self) -> None:
        """Draw plans, and raise the probability of those that beat others on the same task."""
        recipe = self.recipe
        for step in range(self.progress.step, recipe.reinforce_steps):
            tasks, pools = draw_tasks(self._world, self.pools, recipe.tasks_a_step, self._rng)
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
            raise_plans(self.policy, self._adam, scene, drawn, entropy=entropy)
            self._end_step("reinforce", step, recipe.reinforce_steps)

    def _polish(self) -> None:
        """Evolve the output layers by the reward of greedy decoding, all candidates on the same tasks."""
        recipe = self.recipe
        if self.progress.step >= recipe.polish_generations:
            return
        start = {name: self.policy.parameters[name].copy() for name in _POLISHED}

        def measure(candidates: Sequence[Floats], count: int) -> list[float]:
            tasks, pools = draw_tasks(self._world, self.pools, count, self._rng)
            scene = self._stage.make(tasks, pools)
            return [self._measure_greedy(unpack(each, start), scene, tasks, pools) for each in candidates]

        best = pack(start)
        generations = evolve(
            best,
            lambda candidates, _: measure(candidates, recipe.common_tasks),
            spread=0.03,
            seed=recipe.seed + 1,
            population=recipe.population,
            generations=range(recipe.polish_generations),
        )
        for done, reward, strategy in generations:
            self._on_progress("polish", done, recipe.polish_generations, f"reward {reward:.3f}")
            best = np.asarray(strategy.result.xfavorite)
        before, after = measure([pack(start), best], 8 * recipe.common_tasks)
        if after > before:
            self.policy.parameters.update(unpack(best, start))
        self.progress.step = recipe.polish_generations

    def _blur(self, scene: Scene) -> Scene:
        return blur(scene, tasks=self.recipe.task_noise, words=self.recipe.word_noise, rng=self._rng)

    def _measure_greedy(
        self, layers: dict[str, Floats], scene: Scene, tasks: Sequence[GradedTask], pools: Sequence[BenchPool]
    ) -> float:
        policy = TinyPolicy(self.policy.parameters | layers, most_steps=self.policy.most_steps)
        plans = policy.write(scene)
        rewards = [
            self._reward.of_words(task, pool, tuple(plan)) for task, plan, pool in zip(tasks, plans, pools, strict=True)
        ]
        return float(np.mean(rewards))

    def _end_step(self, stage: str, step: int, steps: int) -> None:
        self.progress.step = step + 1
        seen = ""
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            means = self._measure_progress(128)
            self.progress.curve.append({"stage": stage, "step": step + 1, **means})
            seen = f"reward {means['reward']:.3f}, right {means['right']:.3f}"
            self.save()
        self._on_progress(stage, step + 1, steps, seen)

    def _measure_progress(self, count: int) -> dict[str, float]:
        """Measure greedy decoding on tasks and pools of training."""
        tasks, pools = draw_tasks(self._world, self.pools, count, np.random.default_rng([self.recipe.seed, 3]))
        plans = self.policy.write(self._stage.make(tasks, pools))
        return mean_outcomes(
            [self._world.run(task, to_steps(plan), pool) for task, plan, pool in zip(tasks, plans, pools, strict=True)]
        )


def finish(training: Training, path: Path, *, name: str) -> TinyPolicy:
    """Save the policy of a finished training with its card."""
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
    """Draw reward and share right over the steps of all stages. A training without a point has no picture."""
    starts = [
        place for place, point in enumerate(curve, start=1) if place > 1 and point["stage"] != curve[place - 2]["stage"]
    ]
    if curve:
        lines = {key: [float(point[key]) for point in curve] for key in ("right", "reward")}
        plot_course(path, lines, title=title, stages=starts, x=f"each point is {SAVE_EVERY} steps")
