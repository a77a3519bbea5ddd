"""Workflow: what is done for one task. A closed union; each member says who is asked, and when it ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, assert_never

from ripieno.domain.grader import Check, find_asked
from ripieno.domain.worker import WorkerId

MOST_STEPS = 5
"""Of one plan.

Source:
    Conductor (arXiv 2512.04388): at most five; three to four were used on its hardest set.
"""


class Op(StrEnum):
    """What a step of a plan does with what it sees."""

    SOLVE = "solve"
    EXTRACT = "extract"
    TRANSFORM = "transform"
    RUN = "run"
    VERIFY = "verify"
    MERGE = "merge"


class Merge(StrEnum):
    """How one answer is made of several."""

    VOTE = "vote"
    BEST = "best"
    SYNTHESIZE = "synthesize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Solo:
    """One worker answers; if it fails, the next of `fallbacks` does."""

    worker: WorkerId
    fallbacks: tuple[WorkerId, ...] = ()

    @property
    def workers(self) -> tuple[WorkerId, ...]:
        """All workers in the order in which they are tried."""
        return (self.worker, *self.fallbacks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """Stages from small to large; an answer that passes the check ends it, and the last stage is not checked."""

    stages: tuple[WorkerId, ...]
    check: Check
    threshold: float = 0.5
    """Least finding, in [0, 1], that ends it."""
    fallbacks: tuple[WorkerId, ...] = ()

    def __post_init__(self) -> None:
        if len(self.stages) < 2:
            raise ValueError(f"a cascade has two stages or more, got {self.stages!r}")

    @property
    def worker(self) -> WorkerId:
        """The worker that is asked first."""
        return self.stages[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """An answer is checked; what fails goes back to its worker, then to the next one."""

    worker: WorkerId
    check: Check
    repairs: int = 1
    """How often a worker may mend its own answer."""
    threshold: float = 0.5
    fallbacks: tuple[WorkerId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Several answers at once, and one made of them."""

    members: tuple[WorkerId, ...]
    """Who is asked; a worker that stands several times gives as many samples."""
    merge: Merge
    arbiter: WorkerId | None = None
    """Who synthesizes."""
    check: Check | None = None
    """What `best` takes the best by."""
    rounds: int = 1
    """1. Records of the removed modes `debate` and `mixture` hold more: they are read, and never run."""
    fallbacks: tuple[WorkerId, ...] = ()

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"an ensemble has two members or more, got {self.members!r}")
        if self.merge is Merge.SYNTHESIZE and self.arbiter is None:
            raise ValueError("an ensemble that synthesizes needs an arbiter")
        if self.merge is Merge.BEST and self.check is None:
            raise ValueError("an ensemble that takes the best needs a check")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds!r}")

    @property
    def worker(self) -> WorkerId:
        """The first member."""
        return self.members[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan: who does what, and what it sees."""

    worker: WorkerId
    op: Op
    access: tuple[int, ...] = ()
    """Earlier steps whose results it sees, from 0; none means the question."""
    text: str = ""
    """The subtask in words; without, the operation speaks for itself."""
    needs_approval: bool = False
    """Whether a human must agree before it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Typed steps; those that do not see each other run at the same time, and the last one's result is the answer."""

    steps: tuple[Step, ...]
    fallbacks: tuple[WorkerId, ...] = ()
    """Who stands in for a worker that fails."""
    author: str = ""
    """Who wrote it: a conductor's version."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise ValueError(f"a plan has 1 to {MOST_STEPS} steps, got {len(self.steps)}")
        for place, step in enumerate(self.steps):
            dangling = [index for index in step.access if not 0 <= index < place]
            if dangling:
                raise ValueError(f"step {place + 1} sees step {dangling[0] + 1}, which does not stand before it")
            if len(set(step.access)) != len(step.access):
                raise ValueError(f"step {place + 1} sees a step twice: {[index + 1 for index in step.access]}")
            if step.op in (Op.VERIFY, Op.MERGE, Op.TRANSFORM) and not step.access:
                raise ValueError(f"step {place + 1} is to {step.op}, but sees no earlier step")
            if step.op is Op.VERIFY and self.steps[step.access[-1]].worker == step.worker:
                raise ValueError(f"step {place + 1} is to verify what its own worker made")

    @property
    def worker(self) -> WorkerId:
        """The worker of the first step."""
        return self.steps[0].worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Steps that a director chooses one by one, each after the result before it, until an answer is accepted."""

    worker: WorkerId
    """Of whom most is expected."""
    fallbacks: tuple[WorkerId, ...] = ()
    """All others that a turn may be given to."""
    most: int = MOST_STEPS
    """Turns; after the last one the latest answer is given."""
    author: str = ""
    """Who chooses: a director's version."""

    def __post_init__(self) -> None:
        if not 1 <= self.most <= MOST_STEPS:
            raise ValueError(f"turns are 1 to {MOST_STEPS}, got {self.most!r}")


Workflow: TypeAlias = Solo | Cascade | Verified | Ensemble | Plan | Turns


def list_workers(workflow: Workflow) -> Iterator[WorkerId]:
    """Everyone who may be asked, in no order, some several times."""
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
    """Workers that have a place of their own in a workflow: not those that stand in for others or check answers."""
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
    """Name the removed mode that a recorded workflow was made by; None where the workflow can run."""
    if isinstance(workflow, Ensemble) and workflow.rounds > 1:
        return "debate" if workflow.merge is Merge.VOTE else "mixture"
    return None


def least_calls(workflow: Workflow) -> int:
    """Calls that the workflow makes when every first answer is good: a smaller budget cannot carry it."""
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
