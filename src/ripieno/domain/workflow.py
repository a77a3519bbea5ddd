"""Workflow: the allowed calls for one task, as a closed union. Each member has its own end condition."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, assert_never

from ripieno.domain.grader import Check, find_asked
from ripieno.domain.worker import WorkerId

MOST_STEPS = 5
"""Steps of one plan.

Source:
    Conductor (arXiv 2512.04388): at most five; it used three to four on its hardest set.
"""


class Op(StrEnum):
    """Operation of a step of a plan."""

    SOLVE = "solve"
    EXTRACT = "extract"
    TRANSFORM = "transform"
    RUN = "run"
    VERIFY = "verify"
    MERGE = "merge"


class Merge(StrEnum):
    """How several answers become one."""

    VOTE = "vote"
    BEST = "best"
    SYNTHESIZE = "synthesize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Solo:
    """One worker answers; if it fails, the next of `fallbacks` answers."""

    worker: WorkerId
    fallbacks: tuple[WorkerId, ...] = ()

    @property
    def workers(self) -> tuple[WorkerId, ...]:
        """Return all workers in the order of the attempts."""
        return (self.worker, *self.fallbacks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """Stages from small to large. The first answer that passes the check ends it; the last stage is not checked."""

    stages: tuple[WorkerId, ...]
    check: Check
    threshold: float = 0.5
    """Lowest rating that passes, in [0, 1]."""
    fallbacks: tuple[WorkerId, ...] = ()

    def __post_init__(self) -> None:
        if len(self.stages) < 2:
            raise ValueError(f"a cascade needs at least two stages, got {self.stages!r}")

    @property
    def worker(self) -> WorkerId:
        """Return the worker of the first stage."""
        return self.stages[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The answer is checked. If it fails, its worker repairs it, then the next worker answers."""

    worker: WorkerId
    check: Check
    repairs: int = 1
    """Number of repairs by each worker."""
    threshold: float = 0.5
    fallbacks: tuple[WorkerId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Several answers in parallel, merged into one."""

    members: tuple[WorkerId, ...]
    """Workers that answer; one that is listed several times gives as many samples."""
    merge: Merge
    arbiter: WorkerId | None = None
    check: Check | None = None
    rounds: int = 1
    """Always 1, except in records of the removed modes `debate` and `mixture`, which cannot run."""
    fallbacks: tuple[WorkerId, ...] = ()

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"an ensemble needs at least two members, got {self.members!r}")
        if self.merge is Merge.SYNTHESIZE and self.arbiter is None:
            raise ValueError("an ensemble that synthesizes needs an arbiter")
        if self.merge is Merge.BEST and self.check is None:
            raise ValueError("an ensemble that chooses the best needs a check")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds!r}")

    @property
    def worker(self) -> WorkerId:
        """Return the first member."""
        return self.members[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan: its worker, operation and inputs."""

    worker: WorkerId
    op: Op
    access: tuple[int, ...] = ()
    """Earlier steps whose results are its input, from 0; the question if empty."""
    text: str = ""
    """The subtask in words, if the operation alone does not say it."""
    needs_approval: bool = False
    """True if a human must approve it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Typed steps. Independent steps run in parallel, and the result of the last step is the answer."""

    steps: tuple[Step, ...]
    fallbacks: tuple[WorkerId, ...] = ()
    author: str = ""
    """Version of the conductor that wrote it."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise ValueError(f"a plan has 1 to {MOST_STEPS} steps, got {len(self.steps)}")
        for place, step in enumerate(self.steps):
            dangling = [index for index in step.access if not 0 <= index < place]
            if dangling:
                raise ValueError(f"step {place + 1} sees step {dangling[0] + 1}, which is not before it")
            if len(set(step.access)) != len(step.access):
                raise ValueError(f"step {place + 1} sees a step twice: {[index + 1 for index in step.access]}")
            if step.op in (Op.VERIFY, Op.MERGE, Op.TRANSFORM) and not step.access:
                raise ValueError(f"step {place + 1} has the operation {step.op}, but sees no earlier step")
            if step.op is Op.VERIFY and self.steps[step.access[-1]].worker == step.worker:
                raise ValueError(f"step {place + 1} verifies a result of its own worker")

    @property
    def worker(self) -> WorkerId:
        """Return the worker of the first step."""
        return self.steps[0].worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Steps that a director chooses one by one, each after the previous result, until it accepts an answer."""

    worker: WorkerId
    """The worker that the policy chose."""
    fallbacks: tuple[WorkerId, ...] = ()
    """Other workers that the director may choose."""
    most: int = MOST_STEPS
    """Highest number of turns. After the last one, the latest answer is returned."""
    author: str = ""
    """Version of the director."""

    def __post_init__(self) -> None:
        if not 1 <= self.most <= MOST_STEPS:
            raise ValueError(f"turns are 1 to {MOST_STEPS}, got {self.most!r}")


Workflow: TypeAlias = Solo | Cascade | Verified | Ensemble | Plan | Turns


def list_workers(workflow: Workflow) -> Iterator[WorkerId]:
    """List all workers that may be called, unordered and with repetitions."""
    yield from workflow.fallbacks
    yield from list_named(workflow)
    match workflow:
        case Cascade(check=check) | Verified(check=check) | Ensemble(check=check):
            asked = find_asked(check) if check is not None else None
            if asked is not None:
                yield asked
        case _:
            pass


def list_named(workflow: Workflow) -> Iterator[WorkerId]:
    """List the workers of a workflow without fallbacks and checks."""
    match workflow:
        case Solo(worker=worker) | Turns(worker=worker) | Verified(worker=worker):
            yield worker
        case Cascade(stages=stages):
            yield from stages
        case Ensemble(members=members, arbiter=arbiter):
            yield from members
            if arbiter is not None:
                yield arbiter
        case Plan(steps=steps):
            yield from (step.worker for step in steps)
        case _:
            assert_never(workflow)


def find_removed_mode(workflow: Workflow) -> str | None:
    """Return the removed mode of a recorded workflow; None if the workflow can run."""
    if isinstance(workflow, Ensemble) and workflow.rounds > 1:
        return "debate" if workflow.merge is Merge.VOTE else "mixture"
    return None


def least_calls(workflow: Workflow) -> int:
    """Count the calls of a workflow in which every first answer is good, the smallest possible budget."""
    match workflow:
        case Solo() | Turns():
            return 1
        case Cascade(check=check) | Verified(check=check):
            return 1 + (find_asked(check) is not None)
        case Ensemble(members=members, merge=Merge.VOTE):
            return len(members) // 2 + 1
        case Ensemble(members=members, merge=merge):
            return len(members) + (merge is Merge.SYNTHESIZE)
        case Plan(steps=steps):
            return len(steps)
        case _:
            assert_never(workflow)
