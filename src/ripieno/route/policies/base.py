"""Policy: Estimates to a Choice."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ripieno.domain import Choice, Estimate, Features, JsonValue, Objective


class Policy(Protocol):
    """Chooses among eligible workers. Built-in and plugin policies have the same interface."""

    name: str

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Return the policy's parameters. Each decision records them."""
        ...

    def decide(
        self,
        features: Features,
        estimates: Sequence[Estimate],
        *,
        objective: Objective,
        rng: np.random.Generator,
    ) -> Choice:
        """Order the workers of `estimates` (at least one), best first, with the propensity of the first one."""
        ...
