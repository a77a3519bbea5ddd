"""Graders: ways to check an answer, with or without its solution. Closed unions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ripieno.domain.conversation import JsonValue
from ripieno.domain.task import Task
from ripieno.domain.worker import WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """The final answer equals one of `answers`; case, spacing and outer punctuation do not count."""

    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """The final number equals `answer` within `tolerance` (relative, and absolute below 1)."""

    answer: float
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice:
    """The chosen option is `letter`; `options` are all letters."""

    letter: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """The answer is JSON that fits `schema`."""

    schema: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTests:
    """The answer is Python code that passes `tests` in a jail."""

    tests: str
    prefix: str = ""
    """Code before an answer that only continues it."""
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A worker grades the answer against an anchored rubric."""

    rubric: str
    """Meaning of each grade from 1 (worst) to 5 (best), for this task."""
    reference: str | None = None
    worker: WorkerId | None = None
    """The worker that judges; None takes the one of the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """A verifier plugin grades the answer from its own facts."""

    verifier: str
    facts: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The quality is the recorded one of a replay worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """The final answer matches a regular expression (RE2) as a whole."""

    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The worker `peer` gives the same final answer to the same task."""

    peer: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Human:
    """A human accepts or rejects the answer."""

    question: str = "Is this answer right?"


Grader: TypeAlias = Exact | Numeric | MultipleChoice | JsonSchema | Pattern | UnitTests | Judge | External | Recorded
"""Checks of an answer after its run."""
Check: TypeAlias = (
    Exact | Numeric | MultipleChoice | JsonSchema | Pattern | UnitTests | Judge | External | Agreement | Human
)
"""Checks of an answer during its run."""


def find_asked(check: Check) -> WorkerId | None:
    """Return the worker that a check calls, if any. It may not check its own answers."""
    match check:
        case Agreement(peer=worker) | Judge(worker=worker):
            return worker
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedTask:
    """A task with its solution, for profiling and benchmarks."""

    id: str
    task: Task
    grader: Grader
    family: str
    split: str = "train"
    """`train`, or `test` for held-out templates."""
    template: str = ""
