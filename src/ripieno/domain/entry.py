"""Entry: one recorded fact. The ledger holds nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ripieno.domain.conversation import JsonValue
from ripieno.domain.routing import Decision, RoutingSetup
from ripieno.domain.run import Answer, Call, Run, Verdict
from ripieno.domain.task import Task
from ripieno.domain.worker import WorkerId

EXPIRY = "expiry"
"""Recorded as the one who answered a proposal that expired."""


class _Named:
    __slots__ = ()
    _ID = ""
    """Format of the id."""

    @property
    def id(self) -> str:
        """Return the unique name of the entry. Of two entries with one name, the ledger records the first."""
        return self._ID.format(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(_Named):
    """The router chose a workflow for a task."""

    _ID = "decided:{0.decision.id}"
    decision: Decision
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured(_Named):
    """The first decision was made under a setup."""

    _ID = "configured:{0.setup.digest}"
    setup: RoutingSetup


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed(_Named):
    """A workflow ran, or a recorded run was imported."""

    _ID = "executed:{0.run.id}"
    run: Run
    task: Task | None = None
    """Given if no decision holds the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(_Named):
    """A verifier, a judge or a user rated a run."""

    _ID = "judged:{0.run}:{0.verdict.verifier}:{0.nth}"
    run: str
    verdict: Verdict
    nth: int = 0
    """Number of earlier findings of the same verifier about the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed(_Named):
    """A process started or took over a run of several steps. Of two processes that claim at once, one succeeds."""

    _ID = "claimed:{0.run}:{0.nth}"
    run: str
    """Id of the run, and of its decision."""
    owner: str
    nth: int = 0
    """Number of earlier claims."""
    key: str | None = None
    """Id of the virtual key that pays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun(_Named):
    """A step with effects is about to start. It never starts again."""

    _ID = "begun:{0.run}:{0.step}"
    run: str
    step: str
    worker: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped(_Named):
    """A step of a workflow ended. A run that resumes after a crash does not repeat it."""

    _ID = "stepped:{0.run}:{0.step}"
    run: str
    step: str
    calls: tuple[Call, ...] = ()
    answer: Answer | None = None
    author: WorkerId | None = None
    verdict: Verdict | None = None
    """Given if the step was a check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved(_Named):
    """A human answered a proposal, or it expired. The first answer counts."""

    _ID = "resolved:{0.run}:{0.step}:{0.digest:.12}"
    run: str
    step: str
    digest: str
    is_approved: bool
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed(_Named):
    """A step waits for a human."""

    _ID = "proposed:{0.run}:{0.step}:{0.digest:.12}"
    run: str
    step: str
    digest: str
    """Digest of worker, worker version, arguments and context. An approval covers exactly these."""
    worker: WorkerId
    arguments: str
    """Input of the worker, or the text to judge."""
    question: str
    expires_at: float
    """Unix time at which the proposal is denied."""

    def resolve(self, *, is_approved: bool, by: str, reason: str = "") -> Resolved:
        """Answer the proposal."""
        return Resolved(run=self.run, step=self.step, digest=self.digest, is_approved=is_approved, by=by, reason=reason)

    def expire(self) -> Resolved:
        """Deny the proposal because its time is over."""
        return self.resolve(is_approved=False, by=EXPIRY, reason="no answer in time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned(_Named):
    """A checkpoint was trained."""

    _ID = "learned:{0.checkpoint}"
    checkpoint: str
    card: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted(_Named):
    """A checkpoint replaced `previous` in traffic."""

    _ID = "promoted:{0.nth}:{0.checkpoint}"
    checkpoint: str
    previous: str | None
    reason: str
    nth: int
    """Number of earlier promotions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged(_Named):
    """A candidate passed or failed one stage of a promotion."""

    _ID = "staged:{0.nth}:{0.checkpoint}"
    checkpoint: str
    incumbent: str | None
    stage: str
    """`replay`, `veto`, `shadow` or `canary`."""
    passed: bool
    reason: str
    facts: Mapping[str, JsonValue]
    nth: int
    """Number of earlier stages."""


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
