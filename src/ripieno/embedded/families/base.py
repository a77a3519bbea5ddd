"""A family: templates in natural language for problems with a computed answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ripieno.domain import Task
from ripieno.domain.grader import GradedTask, Grader

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Values of a template's blanks, and the check of the answer."""

    blanks: Mapping[str, str]
    grader: Grader


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One phrasing, with the function that makes its problems."""

    text: str
    make: Callable[[Rng], Problem]
    is_near_miss: bool = False
    """Whether it contains words of another family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Training templates, and templates for the held-out table."""

    name: str
    train: tuple[Template, ...]
    test: tuple[Template, ...]

    def generate(self, *, split: str, count: int, rng: Rng) -> list[GradedTask]:
        """Make `count` distinct tasks of one split, templates in turn."""
        templates = self.train if split == "train" else self.test
        made: dict[str, GradedTask] = {}
        for attempt in range(count * 20):
            if len(made) == count:
                break
            index = attempt % len(templates)
            problem = templates[index].make(rng)
            text = templates[index].text.format(**problem.blanks)
            made.setdefault(
                text,
                GradedTask(
                    id=f"{self.name}-{split}-{len(made)}",
                    task=Task.from_text(text, kind=self.name),
                    grader=problem.grader,
                    family=self.name,
                    split=split,
                    template=f"{self.name}/{split}/{index}",
                ),
            )
        return list(made.values())


def ways(make: Callable[[Rng], Problem], *texts: str) -> tuple[Template, ...]:
    """Make templates of several phrasings of one problem."""
    return tuple(Template(text=text, make=make) for text in texts)


def near_misses(make: Callable[[Rng], Problem], *texts: str) -> tuple[Template, ...]:
    """Make phrasings with words of another family, which mislead a keyword rule."""
    return tuple(Template(text=text, make=make, is_near_miss=True) for text in texts)


def pick(rng: Rng, choices: "list[str] | tuple[str, ...]") -> str:
    """Draw one of several texts."""
    return choices[int(rng.integers(len(choices)))]


def whole(rng: Rng, low: int, high: int) -> int:
    """Draw an integer in [low, high]."""
    return int(rng.integers(low, high + 1))
