"""Entry: one recorded fact. The ledger holds nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ripieno.domain.routing import Decision
from ripieno.domain.run import Run, Verdict
from ripieno.domain.task import JsonValue, Task


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


Entry: TypeAlias = Decided | Executed | Judged | Learned | Promoted | Staged
