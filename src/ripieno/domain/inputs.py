"""DecisionInputs: everything that one decision depends on, gathered before it and recorded with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ripieno.domain.bound import Account
from ripieno.domain.features import Features
from ripieno.domain.grader import Check
from ripieno.domain.memory import Scope
from ripieno.domain.objective import Mode
from ripieno.domain.routing import Mask, RecordedInputs, RoutingSetup
from ripieno.domain.task import Task
from ripieno.domain.worker import WorkerId
from ripieno.domain.workflow import Solo, Workflow

_CHECKED = frozenset({Mode.CASCADE, Mode.VERIFIED, Mode.BEST_OF})
"""Modes that use the check of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """The circumstances of one request: id, seed, time of arrival, key, and memory."""

    id: str
    seed: int
    started: float
    """Monotonic time of arrival."""
    incumbent: WorkerId | None = None
    """The worker that answered the earlier turns of the conversation."""
    key: str | None = None
    account: Account | None = None
    """Reserves the key's money for each call; None if no key pays."""
    check: Check | None = None
    workflow: Workflow | None = None
    memory: Scope | None = None
    """Scope of the memory that is read before and written after; None turns memory off."""
    thread: str = ""
    """Id of the conversation in memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecisionInputs:
    """Everything that a decision depends on, except the predictor, which is found by its version."""

    id: str
    seed: int
    task: Task
    """The task, its objective completed by the analysis and the budget's pacer."""
    features: Features
    mask: Mask
    setup: RoutingSetup
    load: Mapping[WorkerId, float] = field(default_factory=dict)
    """Running and waiting calls of each full eligible worker, divided by its concurrency limit."""
    incumbent: WorkerId | None = None
    """The worker that answered the earlier turns of the conversation."""
    check: Check | None = None
    workflow: Workflow | None = None

    @property
    def is_named(self) -> bool:
        """Return whether only one worker may answer, alone. Nothing is estimated then."""
        return names_worker(self.task, self.workflow)

    def record(self, workflow: Workflow) -> RecordedInputs:
        """Return the inputs that the decision for `workflow` does not hold itself, without a check that it ignored."""
        is_given = self.workflow is not None
        reads_check = self.task.objective.mode in _CHECKED and not is_given and not isinstance(workflow, Solo)
        return RecordedInputs(
            setup=self.setup.digest,
            kind=self.features.kind,
            sensitivity=self.features.sensitivity,
            is_encoded=self.is_named or bool(self.features.embedding.any()),
            check=self.check if reads_check else None,
            is_given=is_given,
        )


def names_worker(task: Task, workflow: Workflow | None = None) -> bool:
    """Return whether the request or its key allows only one worker, to answer alone."""
    return task.objective.sole is not None and task.objective.mode in (None, Mode.SOLO) and workflow is None
