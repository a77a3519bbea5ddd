"""Task families of the embedded pool, with natural wording, near misses and held-out templates."""

import numpy as np

from ripieno.domain.grader import GradedTask
from ripieno.embedded.families.base import Family
from ripieno.embedded.families.numbers import ALGEBRA, ARITHMETIC
from ripieno.embedded.families.words import FACTS, SENTIMENT, SPELLING, STRINGS
from ripieno.embedded.families.world import DATES, UNITS

FAMILIES: tuple[Family, ...] = (ARITHMETIC, ALGEBRA, UNITS, DATES, STRINGS, SPELLING, SENTIMENT, FACTS)


def generate_tasks(*, train: int, test: int, seed: int) -> list[GradedTask]:
    """Make tasks of every family.

    Args:
        train: tasks of each family from its training templates.
        test: tasks of each family from its held-out templates.
        seed: seed of the tasks.
    """
    tasks: list[GradedTask] = []
    for number, family in enumerate(FAMILIES):
        rng = np.random.default_rng([seed, number])
        tasks.extend(family.generate(split="train", count=train, rng=rng))
        tasks.extend(family.generate(split="test", count=test, rng=rng))
    return tasks
