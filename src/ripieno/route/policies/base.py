"""Policy: Estimates to a Choice."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ripieno.domain import Choice, Estimate, Features, JsonValue, Objective


class Policy(Protocol):
    """Chooses among eligible workers. Built-in and plugin policies fill the same role; all see masked input only."""

    name: str

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """The policy's parameters, recorded with each decision."""
        ...

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
