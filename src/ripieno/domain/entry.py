"""Entry: one recorded fact. The ledger holds nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ripieno.domain.routing import Decision, RoutingSetup
from ripieno.domain.run import Answer, Call, Run, Verdict
from ripieno.domain.task import JsonValue, Task
from ripieno.domain.worker import WorkerId

EXPIRY = "expiry"
"""Who answers a proposal that no human answered in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A task was given to a workflow."""

    decision: Decision
    task: Task

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"decided:{self.decision.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """Decisions were made under a setup that the ledger did not hold yet."""

    setup: RoutingSetup

    @property
    def id(self) -> str:
        """Unique name of the entry: an equal setup is recorded once."""
        return f"configured:{self.setup.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """A workflow ran, or a recorded run was imported; `task` is given where no decision holds it."""

    run: Run
    task: Task | None = None

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"executed:{self.run.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verifier, a judge or a user found what a run was worth."""

    run: str
    """Id of the run."""
    verdict: Verdict
    nth: int = 0
    """Distinguishes several findings of one verifier about one run."""

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"judged:{self.run}:{self.verdict.verifier}:{self.nth}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A process takes a run of several steps upon itself; the next claim, once it is dead, takes the run over."""

    run: str
    """Id of the run, and of its decision."""
    owner: str
    nth: int = 0
    """How many claims stood before this one."""
    key: str | None = None
    """Id of the virtual key that pays."""

    @property
    def id(self) -> str:
        """Unique name of the entry: of two that claim at once, one gets it."""
        return f"claimed:{self.run}:{self.nth}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A step that changes something outside is about to be made: it is not made again, whatever comes."""

    run: str
    step: str
    worker: WorkerId

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"begun:{self.run}:{self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """A step of a workflow is done: a run that goes on after a crash does not repeat it."""

    run: str
    step: str
    calls: tuple[Call, ...] = ()
    answer: Answer | None = None
    author: WorkerId | None = None
    verdict: Verdict | None = None
    """Where the step was a check."""

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"stepped:{self.run}:{self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A human, or the end of the time, answered a proposal; the first answer counts."""

    run: str
    step: str
    digest: str
    is_approved: bool
    by: str
    reason: str = ""

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"resolved:{self.run}:{self.step}:{self.digest[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """A step waits for a human."""

    run: str
    step: str
    digest: str
    """Of worker, its version, arguments and context: what is agreed to, and nothing else."""
    worker: WorkerId
    arguments: str
    """What the worker would be given, or what is to be judged."""
    question: str
    expires_at: float
    """Unix time from which on the answer is no."""

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"proposed:{self.run}:{self.step}:{self.digest[:12]}"

    def resolve(self, *, is_approved: bool, by: str, reason: str = "") -> Resolved:
        """The answer to it."""
        return Resolved(run=self.run, step=self.step, digest=self.digest, is_approved=is_approved, by=by, reason=reason)

    def expire(self) -> Resolved:
        """The answer to it once its time is over: no."""
        return self.resolve(is_approved=False, by=EXPIRY, reason="nobody answered in time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A checkpoint was trained."""

    checkpoint: str
    card: Mapping[str, JsonValue]

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"learned:{self.checkpoint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """A checkpoint took over the traffic, in place of `previous`."""

    checkpoint: str
    previous: str | None
    reason: str
    nth: int
    """How many promotions stood before this one."""

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"promoted:{self.nth}:{self.checkpoint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """One stage of a promotion passed, or ended it."""

    checkpoint: str
    incumbent: str | None
    stage: str
    """`replay`, `veto`, `shadow` or `canary`."""
    passed: bool
    reason: str
    facts: Mapping[str, JsonValue]
    nth: int
    """How many findings stood before this one."""

    @property
    def id(self) -> str:
        """Unique name of the entry."""
        return f"staged:{self.nth}:{self.checkpoint}"


Entry: TypeAlias = (
    Decided
    | Configured
    | Executed
    | Judged
    | Claimed
    | Begun
    | Stepped
    | Proposed
    | Resolved
    | Learned
    | Promoted
    | Staged
)
