"""Objective: what the caller of a task wants, and within which limits."""

from dataclasses import dataclass
from enum import StrEnum


class Privacy(StrEnum):
    """How far a task may travel, or how far away a worker is. Each boundary includes those before it."""

    LOCAL = "local"
    PRIVATE = "private"
    PUBLIC = "public"

    @property
    def reach(self) -> int:
        """Return the order of the boundary: 0 stays on this machine, 2 leaves the organisation."""
        return _REACH[self]


_REACH = {boundary: index for index, boundary in enumerate(Privacy)}


class Mode(StrEnum):
    """Kind of workflow that a request may name. The router composes the workflow."""

    SOLO = "solo"
    CASCADE = "cascade"
    """A cheap worker, then the strong one if the answer fails its check."""
    AGREEMENT = "agreement"
    """Two different cheap workers, then the strong one if they disagree."""
    VERIFIED = "verified"
    """Check the answer, repair it, then try another worker."""
    VOTE = "vote"
    """The majority of several samples of one worker; it ends early once the majority is certain."""
    BEST_OF = "best-of"
    """The best of several answers, by a check or a judge."""
    SYNTHESIZE = "synthesize"
    """One answer, synthesized from the answers of several workers."""
    PLAN = "plan"
    """Steps written by a conductor."""
    TURNS = "turns"
    """Steps chosen one by one, each after the previous result."""
    DECOMPOSE = "decompose"
    """Parts of the task, each routed separately, and one answer made of their results."""


REMOVED_MODES = {"debate": Mode.VOTE, "mixture": Mode.SYNTHESIZE}
"""Modes of earlier versions, each with its replacement."""


def read_mode(name: str) -> Mode:
    """Return the mode of a name.

    Raises:
        ValueError: the mode is unknown, or was removed; the message names its replacement.
    """
    if name in REMOVED_MODES:
        raise ValueError(f"the workflow {name!r} was removed: use {REMOVED_MODES[name].value!r} or 'plan'")
    try:
        return Mode(name)
    except ValueError as error:
        raise ValueError(f"no workflow is called {name!r}; workflows: {', '.join(Mode)}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What the caller wants: one dial with its limits."""

    preference: float = 0.8
    """The dial, in [0, 1]: 0 chooses the cheapest worker, 1 the best one."""
    preset: str = "balanced"
    deadline_s: float | None = None
    """Seconds after which an answer is late."""
    quality_floor: float = 0.0
    """Lowest acceptable probability of a good answer, in [0, 1]. If no worker reaches it, it does not apply."""
    mission_criticality: float = 3.0
    """Cost of a wrong answer, in [0, 10]."""
    time_criticality: float = 3.0
    """Cost of a slow answer, in [0, 10]."""
    privacy: Privacy = Privacy.PUBLIC
    """How far the task may travel."""
    workers: tuple[str, ...] = ()
    """If given, only these workers may take the task. They are named by the request, as calls with effects require."""
    allowed: tuple[str, ...] = ()
    """If given, only these workers may take the task. It restricts a key or an alias, and does not name workers."""
    stated: frozenset[str] = frozenset()
    """Fields above that the caller stated; the others may be inferred from the text."""
    abstain_price: float | None = None
    """Cost of no answer, in units of the worth of a right answer; None if an answer is always required."""
    money_weight: float = 0.0
    """Utility per US dollar, set by the budget's pacer; 0 if no budget binds."""
    mode: Mode | None = None
    """Kind of the workflow; None leaves it to the router."""

    @property
    def permitted(self) -> tuple[str, ...] | None:
        """Return the workers that the request and its key allow together; None if they allow all."""
        if self.workers and self.allowed:
            return tuple(worker for worker in self.workers if worker in self.allowed)
        return self.workers or self.allowed or None

    @property
    def sole(self) -> str | None:
        """Return the only worker that the request or its key allows, if it is one."""
        only = self.workers or self.allowed
        return only[0] if len(only) == 1 else None

    def __post_init__(self) -> None:
        for name in ("preference", "quality_floor"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {value!r}")
        for name in ("mission_criticality", "time_criticality"):
            value = getattr(self, name)
            if not 0.0 <= value <= 10.0:
                raise ValueError(f"{name} must be in [0, 10], got {value!r}")
        if self.abstain_price is not None and not self.abstain_price >= 0.0:
            raise ValueError(f"abstain_price must not be negative, got {self.abstain_price!r}")
        if not self.money_weight >= 0.0:
            raise ValueError(f"money_weight must not be negative, got {self.money_weight!r}")
        if self.deadline_s is not None and not self.deadline_s > 0.0:
            raise ValueError(f"deadline_s must be positive, got {self.deadline_s!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Ceilings that the engine enforces; None means no ceiling."""

    cost_usd: float | None = None
    seconds: float | None = None
    calls: int | None = None
    tokens: int | None = None
    """Tokens in and out of all calls together."""

    def __post_init__(self) -> None:
        for name in ("cost_usd", "seconds", "calls", "tokens"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value!r}")
