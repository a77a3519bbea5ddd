"""World: runs plans of the workbench in microseconds, by the same rules as the engine.

Every result of a worker is cached, so that a rollout costs a look-up. The worker executes only the first time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ripieno.domain import Op, Verdict
from ripieno.domain.grader import Exact, GradedTask, Numeric
from ripieno.verify.programs import Programs
from ripieno.verify.text import check_exact, check_numeric, reduce_answer
from ripieno.workbench.families import FAMILIES
from ripieno.workbench.workers import WORDS, BenchWorker, make_workers

REFERENCE_COST = 5.0
"""An ordinary price in thousandths of a US dollar, about half of the strong generalist's."""
COST_WEIGHT = 0.15
MOST_COST_SHARE = 0.5
STEP_PRICE = 0.003
UNREADABLE_PRICE = 0.1
FAMILY_PROBES = 4
SKILL_PROBES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOutcome:
    """Result of one plan on one task."""

    is_right: bool
    cost: float
    """In thousandths of a US dollar."""
    steps: int

    @property
    def reward(self) -> float:
        """Return the objective of training. Cost counts only for right answers, which always earn more than wrong ones.

        Source:
            xRouter (arXiv 2510.08439): multiplicative cost, capped.
        """
        price = min(COST_WEIGHT * self.cost / REFERENCE_COST, MOST_COST_SHARE)
        return float(self.is_right) * (1.0 - price) - STEP_PRICE * (self.steps - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPool:
    """Some workers under meaningless numbers, with the little that is known of them."""

    workers: tuple[BenchWorker, ...]
    words: tuple[str, ...]
    """Description of each."""
    family_probes: np.ndarray
    """Right answers of each worker in each family, out of `FAMILY_PROBES`, shape (workers, families)."""
    skill_probes: np.ndarray
    """Right steps of each worker on texts of its own kind, out of `SKILL_PROBES`, shape (workers,)."""

    def __len__(self) -> int:
        return len(self.workers)

    def expect(self, family: int) -> np.ndarray:
        """Return the expected accuracy in a family, shrunk from few probes to the pool's mean, shape (workers,)."""
        prior = self.family_probes.mean() / FAMILY_PROBES
        return np.asarray((self.family_probes[:, family] + prior) / (FAMILY_PROBES + 1.0))

    @property
    def usual(self) -> np.ndarray:
        """Return the expected share of right steps of each worker's own kind, shape (workers,)."""
        return np.asarray((self.skill_probes + 1.0) / (SKILL_PROBES + 2.0))


class World:
    """Tasks, workers, and the result of every plan. Use it as a context manager.

    It has `tasks` tasks of each family and split.
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

    def act(self, worker: BenchWorker, text: str) -> str:
        """Return a worker's result for a text."""
        known = worker.known.get(text)
        return known if known is not None else worker.act(text, self._programs.run)

    def grade(self, task: GradedTask, text: str) -> bool:
        """Return whether an answer is right."""
        place = (task.task.text, text)
        known = self._grades.get(place)
        if known is None:
            known = self._grades[place] = _grade(task, text).quality >= 1.0
        return known

    def run(self, task: GradedTask, steps: Sequence["BenchStep"], pool: BenchPool) -> BenchOutcome:
        """Run a plan on one task."""
        return self.find_outcome(task, self.carry_out(task.task.text, steps, pool))

    def carry_out(self, question: str, steps: Sequence["BenchStep"], pool: BenchPool) -> "BenchRun":
        """Run a plan to its last step, or to the check that accepts."""
        underway = BenchRun(question)
        for step in steps:
            self.make(underway, step, pool)
            if underway.is_accepted:
                break
        return underway

    def make(self, underway: "BenchRun", step: "BenchStep", pool: BenchPool) -> None:
        """Do one more step."""
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

    def find_outcome(self, task: GradedTask, underway: "BenchRun") -> BenchOutcome:
        """Return the outcome of a run."""
        is_right = self.grade(task, underway.results[-1])
        return BenchOutcome(is_right=is_right, cost=underway.cost, steps=len(underway.results))

    def reduce(self, text: str) -> str:
        """Return the final answer of a text in canonical form."""
        known = self._reduced.get(text)
        if known is None:
            known = self._reduced[text] = reduce_answer(text)
        return known

    def draw_pool(self, split: str, rng: np.random.Generator) -> BenchPool:
        """Draw some workers of one split, shuffled: one or two generalists, and most skills one or two times.

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

    def _find_right(self, worker: BenchWorker, split: str) -> np.ndarray:
        """Find which tasks of each family a worker solves alone, shape (families, tasks)."""
        known = self._right.get((worker.id, split))
        if known is None:
            known = self._right[worker.id, split] = np.array(
                [
                    [self.grade(task, self.act(worker, task.task.text)) for task in self.tasks[split, family]]
                    for family in self.families
                ]
            )
        return known

    def describe(self, workers: Sequence[BenchWorker], split: str, rng: np.random.Generator) -> BenchPool:
        """Make a pool of some workers, with descriptions and probes that are drawn again each time."""
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
class BenchRun:
    """A run of the workbench between two of its steps."""

    question: str
    results: list[str] = field(default_factory=list)
    """The answer after each step."""
    shown: list[str] = field(default_factory=list)
    """Text of each step that later steps see."""
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


def _grade(task: GradedTask, text: str) -> Verdict:
    match task.grader:
        case Numeric():
            return check_numeric(task.grader, text)
        case Exact():
            return check_exact(task.grader, text)
        case _:
            raise TypeError(f"the workbench has no tasks graded by {type(task.grader).__name__}")
