"""World: plans of the workbench carried out in microseconds, by the same rules as the engine's.

Every result of a worker is kept, so that a rollout costs what looking up costs; the first time, the worker executes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ripieno.domain import Op, Plan, Step, Verdict
from ripieno.domain.grader import Exact, GradedTask, Numeric
from ripieno.verify.programs import Programs
from ripieno.verify.text import check_exact, check_numeric, reduce_answer
from ripieno.workbench.families import FAMILIES
from ripieno.workbench.workers import WORDS, Maker, make_workers

REFERENCE_COST = 5.0
"""Thousandths of a US dollar: an ordinary price, half of what the strong generalist takes."""
COST_WEIGHT = 0.15
MOST_COST_SHARE = 0.5
STEP_PRICE = 0.003
UNREADABLE_PRICE = 0.1
FAMILY_PROBES = 4
SKILL_PROBES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one plan on one task."""

    is_right: bool
    cost: float
    """In thousandths of a US dollar."""
    steps: int

    @property
    def reward(self) -> float:
        """What training maximises: cost counts where the answer is right, and no answer is worth less than a wrong one.

        Source:
            xRouter (arXiv 2510.08439): multiplicative cost, capped.
        """
        price = min(COST_WEIGHT * self.cost / REFERENCE_COST, MOST_COST_SHARE)
        return float(self.is_right) * (1.0 - price) - STEP_PRICE * (self.steps - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPool:
    """Some workers under numbers that say nothing, with what little is known of them."""

    workers: tuple[Maker, ...]
    words: tuple[str, ...]
    """How each is told."""
    family_probes: np.ndarray
    """Right answers of each worker in each family, out of `FAMILY_PROBES`, shape (workers, families)."""
    skill_probes: np.ndarray
    """Right steps of each worker on texts of its own kind, out of `SKILL_PROBES`, shape (workers,)."""

    def __len__(self) -> int:
        return len(self.workers)

    def expect(self, family: int) -> np.ndarray:
        """Expected share of right answers in a family, its few probes shrunk to the pool's mean, shape (workers,)."""
        prior = self.family_probes.mean() / FAMILY_PROBES
        return np.asarray((self.family_probes[:, family] + prior) / (FAMILY_PROBES + 1.0))

    @property
    def usual(self) -> np.ndarray:
        """Expected share of right steps of one's own kind, shape (workers,)."""
        return np.asarray((self.skill_probes + 1.0) / (SKILL_PROBES + 2.0))


class World:
    """Tasks, workers, and what comes of every plan; use as a context manager.

    Args:
        tasks: of each family and split.
        seed: of the tasks.
    """

    def __init__(self, *, tasks: int = 240, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.workers = make_workers()
        self.families = tuple(family.name for family in FAMILIES)
        self.tasks: dict[tuple[str, str], list[GradedTask]] = {
            (split, family.name): family.generate(split=split, count=tasks, rng=rng)
            for split in ("train", "test")
            for family in FAMILIES
        }
        self._programs = Programs()
        self._grades: dict[tuple[str, str], bool] = {}
        self._reduced: dict[str, str] = {}
        self._right: dict[tuple[str, str], np.ndarray] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._programs.close()

    def act(self, worker: Maker, text: str) -> str:
        """What a worker makes of a text."""
        known = worker.known.get(text)
        return known if known is not None else worker.act(text, self._programs.run)

    def grade(self, task: GradedTask, text: str) -> bool:
        """Whether an answer is right."""
        place = (task.task.text, text)
        known = self._grades.get(place)
        if known is None:
            known = self._grades[place] = _grade(task, text).quality >= 1.0
        return known

    def run(self, task: GradedTask, steps: Sequence["BenchStep"], pool: BenchPool) -> Outcome:
        """Carry out a plan on one task."""
        return self.tell_outcome(task, self.carry_out(task.task.text, steps, pool))

    def carry_out(self, question: str, steps: Sequence["BenchStep"], pool: BenchPool) -> "Underway":
        """A plan from its first step to its last, or to the check that accepts."""
        underway = Underway(question)
        for step in steps:
            self.make(underway, step, pool)
            if underway.is_accepted:
                break
        return underway

    def make(self, underway: "Underway", step: "BenchStep", pool: BenchPool) -> None:
        """One step more."""
        worker, shown = pool.workers[step.worker], underway.shown
        underway.cost += worker.cost
        if step.op is Op.VERIFY:
            found, ours = underway.results[-1], self.act(worker, underway.question)
            underway.results.append(found)
            underway.is_accepted = self.reduce(ours) == self.reduce(found)
            shown.append("ACCEPT" if underway.is_accepted else f"REVISE: recomputed, it is {ours[:100]!r}")
            return
        text = underway.question if step.source == 0 else shown[-1] if step.source == 1 else "\n".join(shown)
        underway.results.append(self.act(worker, text))
        shown.append(underway.results[-1])

    def tell_outcome(self, task: GradedTask, underway: "Underway") -> Outcome:
        """What came of a run."""
        is_right = self.grade(task, underway.results[-1])
        return Outcome(is_right=is_right, cost=underway.cost, steps=len(underway.results))

    def reduce(self, text: str) -> str:
        """The final answer of a text, as it is compared."""
        known = self._reduced.get(text)
        if known is None:
            known = self._reduced[text] = reduce_answer(text)
        return known

    def draw_pool(self, split: str, rng: np.random.Generator) -> BenchPool:
        """Some workers of one split, shuffled: a generalist or two, most skills in one or two makes.

        The strongest generalist is left out of a third of the pools.
        """
        mine = [worker for worker in self.workers if worker.split == split]
        generalists = [worker for worker in mine if worker.is_generalist]
        if rng.random() < 1.0 / 3.0:
            generalists = generalists[1:]
        chosen = [generalists[index] for index in rng.permutation(len(generalists))[: 1 + int(rng.random() < 0.6)]]
        for skill in dict.fromkeys(worker.skills[0] for worker in mine if not worker.is_generalist):
            makes = [worker for worker in mine if worker.skills == (skill,)]
            count = int(rng.choice([0, 1, 2], p=[0.12, 0.58, 0.3]))
            chosen += [makes[index] for index in rng.permutation(len(makes))[:count]]
        return self.describe([chosen[index] for index in rng.permutation(len(chosen))], split, rng)

    def _find_right(self, worker: Maker, split: str) -> np.ndarray:
        """Which tasks of each family a worker solves alone, shape (families, tasks)."""
        known = self._right.get((worker.id, split))
        if known is None:
            known = self._right[worker.id, split] = np.array(
                [
                    [self.grade(task, self.act(worker, task.task.text)) for task in self.tasks[split, family]]
                    for family in self.families
                ]
            )
        return known

    def describe(self, workers: Sequence[Maker], split: str, rng: np.random.Generator) -> BenchPool:
        """A pool of some workers, in words and by probes that are drawn anew each time."""
        side = 0 if split == "train" else 1
        words = []
        for worker in workers:
            said = WORDS["general" if worker.is_generalist else worker.skills[0]][side]
            words.append(said[int(rng.integers(len(said)))])
        right = np.array([self._find_right(worker, split) for worker in workers])
        drawn = rng.integers(right.shape[2], size=(len(self.families), len(workers), FAMILY_PROBES))
        family_probes = np.take_along_axis(right, drawn.transpose(1, 0, 2), axis=2).sum(axis=2).astype(float)
        skill_probes = np.array([rng.binomial(SKILL_PROBES, 1.0 - worker.slip) for worker in workers], dtype=float)
        return BenchPool(
            workers=tuple(workers), words=tuple(words), family_probes=family_probes, skill_probes=skill_probes
        )


@dataclass(slots=True)
class Underway:
    """A run of the workbench between two of its steps."""

    question: str
    results: list[str] = field(default_factory=list)
    """The answer after each step."""
    shown: list[str] = field(default_factory=list)
    """What later steps see of each."""
    cost: float = 0.0
    """In thousandths of a US dollar."""
    is_accepted: bool = False
    """Whether a check has accepted the latest answer."""


@dataclass(frozen=True, slots=True)
class BenchStep:
    """One step of a plan in numbers: worker of the pool, operation, and source (0 question, 1 prev, 2 all)."""

    worker: int
    op: Op
    source: int


def to_plan(steps: Sequence[BenchStep], pool: BenchPool) -> Plan:
    """The same steps as the engine carries them out."""
    from ripieno.domain import WorkerId

    made = []
    for place, step in enumerate(steps):
        access = () if step.source == 0 else (place - 1,) if step.source == 1 else tuple(range(place))
        made.append(Step(worker=WorkerId(pool.workers[step.worker].id), op=step.op, access=access))
    return Plan(steps=tuple(made))


def _grade(task: GradedTask, text: str) -> Verdict:
    match task.grader:
        case Numeric():
            return check_numeric(task.grader, text)
        case Exact():
            return check_exact(task.grader, text)
        case _:
            raise TypeError(f"the workbench has no tasks graded by {type(task.grader).__name__}")
