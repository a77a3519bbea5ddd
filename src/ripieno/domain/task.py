"""Task: one unit of work, with what the caller wants of it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

JsonValue: TypeAlias = object
"""A value that JSON can hold; carried, never interpreted."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=list)


class Privacy(StrEnum):
    """How far a task may travel, and how far a worker is away; each admits all before it."""

    LOCAL = "local"
    PRIVATE = "private"
    PUBLIC = "public"

    @property
    def reach(self) -> int:
        """Order of the boundaries: 0 stays on this machine, 2 leaves the organisation."""
        return _REACH[self]


_REACH = {boundary: index for index, boundary in enumerate(Privacy)}


class Mode(StrEnum):
    """A way of working that a caller may ask for; the router makes a workflow of it."""

    SOLO = "solo"
    CASCADE = "cascade"
    """The cheap worker first, the strong one where its answer is not good enough."""
    AGREEMENT = "agreement"
    """Two different cheap workers; the strong one where they do not agree."""
    VERIFIED = "verified"
    """Checked, repaired, and asked elsewhere."""
    VOTE = "vote"
    """Several samples of one worker, and the majority; ended early where it cannot change any more."""
    BEST_OF = "best-of"
    """Several answers of which a check or a judge takes one."""
    SYNTHESIZE = "synthesize"
    """Several workers, and one that makes one answer of theirs."""
    PLAN = "plan"
    """Steps written by a conductor."""
    TURNS = "turns"
    """Steps chosen one by one, each after the result before it."""
    DECOMPOSE = "decompose"
    """Parts of the task, each routed apart, and one answer made of them."""


REMOVED_MODES = {"debate": Mode.VOTE, "mixture": Mode.SYNTHESIZE}
"""Modes of earlier versions, each with the one to use instead."""


def read_mode(name: str) -> Mode:
    """Return the mode of a name.

    Raises:
        ValueError: there is no such mode; names what to use instead of a removed one.
    """
    if name in REMOVED_MODES:
        raise ValueError(f"the workflow {name!r} was removed: use {REMOVED_MODES[name].value!r} or 'plan'")
    try:
        return Mode(name)
    except ValueError as error:
        raise ValueError(f"no workflow is called {name!r}; workflows: {', '.join(Mode)}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation, as the wire carries it."""

    role: str
    content: JsonValue = None
    """A string, or a list of content parts in the chat-completions form."""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)
    """Further fields (name, tool_calls, ...), passed on untouched."""

    @property
    def text(self) -> str:
        """All text of the message, parts joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        if not isinstance(self.content, Sequence):
            return ""
        texts = (part.get("text") for part in self.content if isinstance(part, Mapping))
        return "\n".join(text for text in texts if isinstance(text, str))

    def count_parts(self, kind: str) -> int:
        """Count the content parts whose type starts with `kind` (`image`, `input_audio`, ...)."""
        if isinstance(self.content, str) or not isinstance(self.content, Sequence):
            return 0
        kinds = (part.get("type") for part in self.content if isinstance(part, Mapping))
        return sum(isinstance(name, str) and name.startswith(kind) for name in kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What the caller wants: one dial, and the limits that go with it."""

    preference: float = 0.8
    """The dial, in [0, 1]: 0 takes the cheapest worker, 1 the best one."""
    preset: str = "balanced"
    deadline_s: float | None = None
    """When an answer becomes late, in seconds."""
    quality_floor: float = 0.0
    """Least acceptable probability of a good answer, in [0, 1]; workers below it only stand in when none reaches it."""
    mission_criticality: float = 3.0
    """What being wrong costs, in [0, 10]."""
    time_criticality: float = 3.0
    """What being slow costs, in [0, 10]."""
    privacy: Privacy = Privacy.PUBLIC
    """How far the task may travel."""
    workers: tuple[str, ...] = ()
    """If given, only these workers may take the task. The request names them: a call with effects needs that."""
    allowed: tuple[str, ...] = ()
    """If given, only these workers may take the task; a restriction of the key or of an alias, which names nobody."""
    stated: frozenset[str] = frozenset()
    """Names of the fields above that the caller gave; what is not stated may be inferred from the text."""
    abstain_price: float | None = None
    """What no answer costs, in units of what a right one is worth; None means that an answer is always wanted."""
    money_weight: float = 0.0
    """Utility that one more US dollar costs, set by the budget's pacer; 0 where no budget binds."""
    mode: Mode | None = None
    """How to work; None leaves it to the router."""

    @property
    def sole(self) -> str | None:
        """The one worker that may take the task, where the request or its key leaves only one."""
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
    """In and out, of all calls together."""

    def __post_init__(self) -> None:
        for name in ("cost_usd", "seconds", "calls", "tokens"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of work: messages, tools, what the caller wants and may spend."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, JsonValue], ...] = ()
    params: Mapping[str, JsonValue] = field(default_factory=dict)
    """Fields for the worker (temperature, stop, response_format, unknown ones), passed on untouched."""
    objective: Objective = Objective()
    budget: Budget = Budget()
    kind: str | None = None
    """The family or domain of the task, where the caller states it."""
    _digest: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("a task needs at least one message")

    @classmethod
    def from_text(cls, text: str, *, objective: Objective | None = None, kind: str | None = None) -> "Task":
        """Make a task of one user message."""
        return cls(messages=(Message(role="user", content=text),), objective=objective or Objective(), kind=kind)

    @property
    def text(self) -> str:
        """The last user message: what routing looks at first."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.text
        return self.messages[-1].text

    @property
    def digest(self) -> str:
        """SHA-256 of all that a worker sees; objective and budget are not part of it."""
        if self._digest:
            return self._digest
        seen = {
            "messages": [[m.role, m.content, dict(m.extra)] for m in self.messages],
            "tools": list(self.tools),
            "params": dict(self.params),
        }
        packed = _CANONICAL.encode(seen)
        digest = hashlib.sha256(packed.encode("utf-8", "surrogatepass")).hexdigest()
        object.__setattr__(self, "_digest", digest)  # the same whenever it is asked for
        return digest
