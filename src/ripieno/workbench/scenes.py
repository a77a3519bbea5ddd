"""Scenes of the workbench: its tasks and pools as the tiny policy sees them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ripieno.analyze.shape import measure_shape
from ripieno.conductor import Brief, Roster
from ripieno.conductor.grammar import name_source
from ripieno.conductor.policy import ACTIONS, NUMBERS, Floats, Scene
from ripieno.conductor.tiny import card_numbers, task_features
from ripieno.domain import Binding, Estimate, Plan, Worker, WorkerId
from ripieno.domain.grader import GradedTask
from ripieno.encoders import Encoder
from ripieno.workbench.world import BenchPool, BenchStep, World

_RIDGE = 1.0
SOURCES = {"question": 0, "prev": 1, "all": 2}
"""Numbers of the grammar's sources."""


class Stage:
    """Encodes the input of a policy.

    For the ablation, `shows_names` replaces each description by the worker's id.
    """

    def __init__(self, world: World, encoder: Encoder, *, shows_names: bool = False) -> None:
        self.world = world
        self._encoder = encoder
        self._shows_names = shows_names
        self.words_size = encoder.dimensions
        self.encoder_name = encoder.name
        tasks = [task for listed in world.tasks.values() for task in listed]
        said = sorted({text for worker in world.workers for side in _sides(worker.skills) for text in side})
        said += [worker.id for worker in world.workers]
        vectors = asyncio.run(_encode(encoder, [task.task.text for task in tasks], said))
        shapes = np.array([measure_shape(task.task.text) for task in tasks], dtype=np.float64)
        features = task_features(vectors[: len(tasks)], shapes)
        self._features = {task.task.text: row for task, row in zip(tasks, features, strict=True)}
        self._words = dict(zip(said, vectors[len(tasks) :].astype(np.float64), strict=True))
        self._guess = self._fit_families()

    @property
    def task_size(self) -> int:
        """Return the number of a task's features."""
        return len(next(iter(self._features.values())))

    def make(self, tasks: Sequence[GradedTask], pools: Sequence[BenchPool]) -> Scene:
        """Make the scene of some tasks, each with its own pool."""
        count, most = len(tasks), max(len(pool) for pool in pools)
        features = np.array([self._features[task.task.text] for task in tasks])
        words, numbers = np.zeros((count, most, self.words_size)), np.zeros((count, most, NUMBERS))
        present = np.zeros((count, most), dtype=bool)
        families = self.guess_families(tasks)
        cards: dict[tuple[int, int], tuple[Floats, Floats]] = {}
        for row, (pool, family) in enumerate(zip(pools, families, strict=True)):
            place = (id(pool), family)
            if place not in cards:
                cards[place] = self._make_cards(pool, family)
            words[row, : len(pool)], numbers[row, : len(pool)] = cards[place]
            present[row, : len(pool)] = True
        return Scene(features, words, numbers, present)

    def read(self, texts: Sequence[str]) -> Floats:
        """Return the features of texts, shape (n, t): tasks, or workers' results."""
        new = [text for text in dict.fromkeys(texts) if text not in self._features]
        if new:
            shapes = np.array([measure_shape(text) for text in new], dtype=np.float64)
            features = task_features(asyncio.run(_encode(self._encoder, new)), shapes)
            self._features.update(zip(new, features, strict=True))
        return np.array([self._features[text] for text in texts])

    def guess_families(self, tasks: Sequence[GradedTask]) -> list[int]:
        """Infer the family of each task from its words."""
        features = np.array([self._features[task.task.text] for task in tasks])
        return [int(place) for place in (_with_one(features) @ self._guess).argmax(axis=1)]

    def _make_cards(self, pool: BenchPool, family: int) -> tuple[Floats, Floats]:
        said = [worker.id for worker in pool.workers] if self._shows_names else list(pool.words)
        words = np.array([self._words[text] for text in said])
        numbers = card_numbers(
            quality=pool.expect(family),
            usual=pool.usual,
            cost=np.array([worker.cost for worker in pool.workers]),
            latency=np.array([worker.latency_s for worker in pool.workers]),
            is_tool=np.array([not worker.is_generalist for worker in pool.workers]),
            can_run=np.array([worker.can_run for worker in pool.workers]),
        )
        return words, numbers

    def _fit_families(self) -> Floats:
        """Fit a ridge regression of the family on the features of training tasks."""
        rows = [
            (self._features[task.task.text], place)
            for place, family in enumerate(self.world.families)
            for task in self.world.tasks["train", family]
        ]
        features = _with_one(np.array([row for row, _ in rows]))
        targets = np.eye(len(self.world.families))[[place for _, place in rows]]
        gram = features.T @ features + _RIDGE * np.eye(features.shape[1])
        return np.asarray(np.linalg.solve(gram, features.T @ targets))


def to_steps(plan: Sequence[tuple[int, int]]) -> list[BenchStep]:
    """Convert a policy's plan into steps of the world."""
    return [BenchStep(worker, *ACTIONS[action]) for action, worker in plan]


def read_plan(plan: Plan) -> list[BenchStep]:
    """Convert a parsed plan into steps of the world."""
    return [
        BenchStep(int(step.worker), step.op, SOURCES[name_source(step, place).value])
        for place, step in enumerate(plan.steps)
    ]


def make_roster(runs: Sequence[bool]) -> Roster:
    """Make a roster of a pool's workers for the grammar, which only needs to know which of them execute code."""
    binding = Binding(provider="workbench", model="workbench")
    return Roster(
        tuple(Worker(id=WorkerId(str(place)), binding=binding, can_run=can) for place, can in enumerate(runs))
    )


def make_brief(task: GradedTask, pool: BenchPool, family: int) -> Brief:
    """Make the brief of a task and a pool for a prompted conductor."""
    roster = make_roster([worker.can_run for worker in pool.workers])
    listed = tuple(
        replace(worker, notes=words, is_tool=not maker.is_generalist)
        for worker, words, maker in zip(roster.workers, pool.words, pool.workers, strict=True)
    )
    quality, usual = pool.expect(family), pool.usual
    estimates = {
        worker.id: Estimate(
            worker=worker.id,
            quality=float(quality[place]),
            quality_sd=0.2,
            cost_usd=pool.workers[place].cost / 1000.0,
            latency_s=pool.workers[place].latency_s,
            mean_quality=float(usual[place]),
        )
        for place, worker in enumerate(listed)
    }
    return Brief(task=task.task, features=None, roster=type(roster)(listed), estimates=estimates)


def _sides(skills: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from ripieno.workbench.workers import WORDS

    return WORDS["general" if len(skills) > 1 else skills[0]]


async def _encode(encoder: Encoder, *batches: Sequence[str]) -> Floats:
    return np.concatenate([await encoder.encode(batch) for batch in batches]).astype(np.float64)


def _with_one(features: Floats) -> Floats:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)
