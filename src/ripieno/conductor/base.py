"""Conductor: writes the plan of one task for the workers that may take it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ripieno.domain import Call, Estimate, Features, Plan, Pool, Task, Worker, WorkerId
from ripieno.execute import Director
from ripieno.providers import CallResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A worker as a conductor sees it: skills, cost and speed, without its name."""

    skills: str
    cost_usd: float
    """Expected price of one call, in US dollars."""
    latency_s: float
    """Expected time of one call, in seconds."""
    quality: float
    """Expected share of accepted answers on this task, in [0, 1]."""
    mean_quality: float
    """Share of accepted answers over all tasks, in [0, 1]."""
    is_tool: bool
    can_run: bool


@dataclass(frozen=True, slots=True)
class Roster:
    """Eligible workers with the numbers that a plan uses for them, in random order."""

    workers: tuple[Worker, ...]

    @classmethod
    def draw(cls, pool: Pool, eligible: Sequence[WorkerId], rng: np.random.Generator) -> "Roster":
        """Draw a random numbering of the eligible workers, so that neither name nor place decides."""
        present = [pool[worker] for worker in eligible if not pool[worker].is_restricted]
        return cls(tuple(present[index] for index in rng.permutation(len(present))))

    def __len__(self) -> int:
        return len(self.workers)

    def find(self, worker: WorkerId) -> int | None:
        """Find the number of a worker."""
        return next((place for place, each in enumerate(self.workers) if each.id == worker), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """The input of a conductor."""

    task: Task
    features: Features | None
    """None if only a prompted worker writes, which reads the task itself."""
    roster: Roster
    estimates: Mapping[WorkerId, Estimate]
    author: WorkerId | None = None
    """The worker that writes, if a worker does."""
    call: Callable[[Worker, Task], Awaitable[CallResult]] | None = None
    """Calls a worker within the run's budget; None calls it without one."""

    def describe(self, worker: Worker) -> Card:
        """Return one worker's card."""
        estimate = self.estimates.get(worker.id)
        return Card(
            skills=worker.notes or ("a tool" if worker.is_tool else "a language model"),
            cost_usd=self._expect_cost(worker.id),
            latency_s=estimate.latency_s if estimate is not None else 0.0,
            quality=estimate.quality if estimate is not None else 0.5,
            mean_quality=_expect_mean_quality(estimate),
            is_tool=worker.is_tool,
            can_run=worker.can_run,
        )

    def _expect_cost(self, worker: WorkerId) -> float:
        """Return the expected cost of a worker; an unknown one counts as the highest known."""
        costs = {name: estimate.cost_usd for name, estimate in self.estimates.items()}
        known = costs.get(worker)
        return max((cost for cost in costs.values() if cost is not None), default=0.0) if known is None else known


def _expect_mean_quality(estimate: Estimate | None) -> float:
    if estimate is None:
        return 0.5
    return estimate.quality if estimate.mean_quality is None else estimate.mean_quality


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPlan:
    """A conductor's plan, with its calls, which are part of the run's cost."""

    plan: Plan | None
    """None if the output is not a plan."""
    calls: tuple[Call, ...] = ()
    fault: str = ""


class Directors(Protocol):
    """Gives each run of turns its director."""

    @property
    def version(self) -> str:
        """Return the name of the director, for the record."""
        ...

    async def direct(self, brief: Brief) -> Director:
        """Make a director for one task."""
        ...


class Conductor(Protocol):
    """Writes plans. Built-in and plugin conductors have the same role."""

    @property
    def version(self) -> str:
        """Return the name of the conductor, for the record."""
        ...

    async def write(self, brief: Brief) -> WrittenPlan:
        """Write the plan of one task. A failure is returned, not raised."""
        ...
