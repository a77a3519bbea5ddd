"""Policy: Estimates to a Choice."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ripieno.domain import Choice, Estimate, Features, Objective


class Policy(Protocol):
    """Chooses among eligible workers. Built-in and plugin policies fill the same role; all see masked input only."""

    name: str

    def decide(
        self,
        features: Features,
        estimates: Sequence[Estimate],
        *,
        objective: Objective,
        rng: np.random.Generator,
    ) -> Choice:
        """Order the workers of `estimates` (at least one), best first, and tell the propensity of that start."""
        ...
