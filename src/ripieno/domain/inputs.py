"""DecisionInputs: all that one decision depends on, gathered before it is made and recorded with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ripieno.domain.bound import Account
from ripieno.domain.features import Features
from ripieno.domain.grader import Check
from ripieno.domain.memory import Scope
from ripieno.domain.routing import Mask, RecordedInputs, RoutingSetup
from ripieno.domain.task import Mode, Task
from ripieno.domain.worker import WorkerId
from ripieno.domain.workflow import Solo, Workflow

_CHECKED = frozenset({Mode.CASCADE, Mode.VERIFIED, Mode.BEST_OF})
"""Workflows that take the check of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """When a task came in, under what name and seed it is decided, who pays, and whose memory it has."""

    id: str
    seed: int
    started: float
    """The clock's monotonic time at arrival."""
    incumbent: WorkerId | None = None
    """The worker that has answered the earlier turns of the same conversation."""
    key: str | None = None
    """Id of the virtual key that pays."""
    account: Account | None = None
    """What holds the key's money back for each call; None where no key pays."""
    check: Check | None = None
    """How the request says that answers can be checked."""
    workflow: Workflow | None = None
    """The workflow, where the caller wrote it."""
    memory: Scope | None = None
    """Whose memory is read before, and written after; None leaves memory out."""
    thread: str = ""
    """The conversation that the task belongs to, as memory keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecisionInputs:
    """All that a decision depends on, beside the predictor, which its version names."""

    id: str
    seed: int
    task: Task
    """The task with the whole objective: what analysis found and what the budget says is in it."""
    features: Features
    mask: Mask
    setup: RoutingSetup
    load: Mapping[WorkerId, float] = field(default_factory=dict)
    """Calls that are with an eligible worker or wait for it, for each that it takes at once, where it is full."""
    incumbent: WorkerId | None = None
    """The worker that has answered the earlier turns of the same conversation."""
    check: Check | None = None
    """How the request says that answers can be checked."""
    workflow: Workflow | None = None
    """The workflow, where the caller wrote it."""

    @property
    def is_named(self) -> bool:
        """Whether request or key leave one worker only, to answer alone: then nothing is estimated."""
        return names_worker(self.task, self.workflow)

    def record(self, workflow: Workflow) -> RecordedInputs:
        """Return the part of the inputs that a decision for `workflow` does not hold anyway.

        The check is left out where the decision did not read it.
        """
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
    """Return whether request or key leave one worker only, to answer alone."""
    return task.objective.sole is not None and task.objective.mode in (None, Mode.SOLO) and workflow is None
