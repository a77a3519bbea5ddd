"""Graders: how an answer is checked, with its solution at hand or without. Closed unions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ripieno.domain.task import JsonValue, Task
from ripieno.domain.worker import WorkerId


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
class MultipleChoice:
    """The chosen option is `letter`; `options` lists all of them."""

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
    """Code that stands before an answer which only continues it."""
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A worker grades the answer against an anchored rubric."""

    rubric: str
    """What each grade from 1 (worst) to 5 (best) means, for this task."""
    reference: str | None = None
    worker: WorkerId | None = None
    """Who judges; None leaves it to the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """A named verifier plugin grades the answer, from facts of its own."""

    verifier: str
    facts: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The quality that a replay worker has on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """The final answer matches a regular expression (RE2) as a whole."""

    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Another worker, asked the same, gives the same final answer."""

    peer: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Human:
    """A human says whether the answer is accepted."""

    question: str = "Is this answer right?"


Grader: TypeAlias = Exact | Numeric | MultipleChoice | JsonSchema | Pattern | UnitTests | Judge | External | Recorded
"""What an answer can be checked by after the fact, by itself."""
Check: TypeAlias = (
    Exact | Numeric | MultipleChoice | JsonSchema | Pattern | UnitTests | Judge | External | Agreement | Human
)
"""What an answer can be checked by while its task is under way."""


def find_asked(check: Check) -> WorkerId | None:
    """The worker that a check asks, if any: it may not check its own answers."""
    match check:
        case Agreement(peer=worker) | Judge(worker=worker):
            return worker
        case _:
            return None


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
