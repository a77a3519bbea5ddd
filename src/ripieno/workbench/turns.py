"""Runs of turns on the workbench: each step is chosen after the result before it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ripieno.conductor.policy import ACTIONS, STOP, Scene, TinyPolicy
from ripieno.conductor.turns import (
    PastTurn,
    TurnPolicy,
    View,
    find_latest,
    is_empty_answer,
    make_cursor,
    make_seen,
    make_states,
)
from ripieno.domain import Op
from ripieno.domain.grader import GradedTask
from ripieno.domain.workflow import MOST_STEPS
from ripieno.workbench.scenes import Stage, to_steps
from ripieno.workbench.world import BenchOutcome, BenchPool, BenchRun, BenchStep, World


class TurnRun:
    """A run of turns in progress."""

    def __init__(self, task: GradedTask, pool: BenchPool) -> None:
        self.task = task
        self.pool = pool
        self.underway = BenchRun(task.task.text)
        self.happened: list[PastTurn] = []

    def make(self, world: World, action: int, worker: int) -> bool:
        """Make one more turn. Return whether the run continues."""
        op, source = ACTIONS[action]
        world.make(self.underway, BenchStep(worker, op, source if self.underway.shown else 0), self.pool)
        is_verdict = op is Op.VERIFY
        self.happened.append(
            PastTurn(action, worker, self.underway.shown[-1], is_refused=is_verdict and not self.underway.is_accepted)
        )
        if self.happened[-1].is_nothing:
            self.underway.shown.pop()
        return not self.underway.is_accepted and len(self.happened) < MOST_STEPS


def play(
    policy: TurnPolicy, stage: Stage, scene: Scene, tasks: Sequence[GradedTask], pools: Sequence[BenchPool]
) -> list[TurnRun]:
    """Run a policy on each task in parallel. Each run ends when its answer is accepted.

    Tasks and pools belong to the rows of the scene.
    """
    runs = [TurnRun(task, pool) for task, pool in zip(tasks, pools, strict=True)]
    most = scene.present.shape[1]
    going = np.arange(len(runs))
    while len(going):
        happened = [runs[row].happened for row in going]
        questions = [runs[row].task.task.text for row in going]
        histories = list(zip(questions, happened, strict=True))
        view = View(
            scene=scene.select(going),
            cursor=make_cursor(happened),
            latest=stage.read([find_latest(*each) for each in histories]),
            seen=np.array([make_seen(*each) for each in histories]),
            states=np.array([make_states(most, each) for each in happened]),
        )
        actions, workers = policy.choose(view)
        keeps = [
            int(action) != STOP and runs[row].make(stage.world, int(action), int(worker))
            for row, action, worker in zip(going, actions, workers, strict=True)
        ]
        going = going[keeps]
    return runs


def find_outcomes(world: World, runs: Sequence[TurnRun]) -> list[BenchOutcome]:
    """Return the outcome of each run."""
    return [world.find_outcome(run.task, run.underway) for run in runs]


def recurse(
    policy: TinyPolicy, stage: Stage, scene: Scene, tasks: Sequence[GradedTask], pools: Sequence[BenchPool]
) -> list[BenchOutcome]:
    """Run whole plans. A plan without a result is followed, once, by a plan for the latest result that has one.

    Source:
        Sakana AI, Conductor (arXiv 2512.04388): the conductor may give a step to itself, to a depth of one.
    """
    world = stage.world
    runs = [
        world.carry_out(task.task.text, to_steps(plan), pool)
        for task, plan, pool in zip(tasks, policy.write(scene), pools, strict=True)
    ]
    stuck = np.array([row for row, run in enumerate(runs) if is_empty_answer(run.results[-1])], dtype=np.int64)
    if len(stuck):
        texts = [
            next((text for text in reversed(runs[row].shown) if not is_empty_answer(text)), runs[row].question)
            for row in stuck
        ]
        again = policy.write(replace(scene.select(stuck), tasks=stage.read(texts)))
        for row, text, plan in zip(stuck, texts, again, strict=True):
            more = world.carry_out(text, to_steps(plan), pools[row])
            runs[row].results += more.results
            runs[row].cost += more.cost
    return [world.find_outcome(task, run) for task, run in zip(tasks, runs, strict=True)]
