"""Graders: how an answer to a task with a known solution is checked. A closed union."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ripieno.domain.task import JsonValue, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """The final answer equals one of `answers`, apart from case, spacing and outer punctuation."""

    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """The final number equals `answer` within `tolerance` (relative, and absolute below 1)."""

    answer: float
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen option is `letter`; `options` lists all of them."""

    letter: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """The answer is JSON that fits `schema`."""

    schema: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTests:
    """The answer is Python code that passes `tests` in a sandbox."""

    tests: str
    prefix: str = ""
    """Code that stands before an answer which only continues it."""
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A worker grades the answer against an anchored rubric."""

    rubric: str
    """What each grade from 1 (worst) to 5 (best) means, for this task."""
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """A named verifier plugin grades the answer, from facts of its own."""

    verifier: str
    facts: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The quality that a replay worker has on record."""


Grader: TypeAlias = Exact | Numeric | Choice | JsonSchema | UnitTests | Judge | External | Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedTask:
    """A task with its solution, as profiling and benchmarks use it."""

    id: str
    task: Task
    grader: Grader
    family: str
    split: str = "train"
    """`train`, or `test` for held-out templates."""
    template: str = ""
