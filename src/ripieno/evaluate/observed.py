"""Observed: decisions of traffic with what came of them, as reports ask about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ripieno.domain import sum_costs

LEAST_EVIDENCE = 50
"""Judged outcomes, or as many as weighted ones are worth, below which nothing is said."""
INFERIOR = 0.02
"""Share of accepted answers by which a worker may be worse and still do."""
NO_FAULTS = ("cancelled", "busy")
"""Failures that say nothing of the worker."""
CHEAPER = 0.8
"""Of the other's price at most: less of a difference is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One call of a run, as questions see it."""

    worker: str
    failure: str | None
    tokens: int
    cost_usd: float | None
    """None where it is unknown."""
    latency_s: float | None = None
    attempts: int = 1
    """How often the worker was asked until it answered or was given up."""
    step: str = ""
    """Name of the workflow's step; empty where there is only one."""
    step_kind: str = ""
    """What the step does, such as `extract`; empty where there is only one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One decision of traffic, and what came of it."""

    kind: str
    key: str | None
    worker: str
    """Who was chosen."""
    propensity: float
    expected: Mapping[str, float]
    """Expected quality of each eligible worker; empty where the worker was named."""
    calls: tuple[Tried, ...]
    latency_s: float
    is_private: bool
    """Whether the task could not leave the organisation."""
    at: float = 0.0
    """When it was decided, in seconds since 1970."""
    deadline_s: float | None = None
    """When an answer would have been late."""
    project: str = ""
    """Whose memory it had."""
    is_solo: bool = True
    """Whether one worker was to answer: what a workflow picked or mended says little of any one."""
    author: str | None = None
    """Whose answer was given; None where there is none."""
    input_tokens: int | None = None
    """Length of the task, as its first call counted it."""
    quality: float | None = None
    """What others found of it, in [0, 1]; None where nobody did."""
    edited: float | None = None
    """Share of the answer that somebody changed, where they gave their own."""
    faults: tuple[str, ...] = ()
    """Tools of which the task carries a failed result."""
    tools: tuple[str, ...] = ()
    """Tools of which it carries results."""
    tool_calls: int = 0
    """Calls of tools in the answer."""
    bad_tool_calls: int = 0
    """Those of tools that were not offered, or with arguments that do not fit."""

    @property
    def tokens(self) -> int:
        """Of all calls."""
        return sum(call.tokens for call in self.calls)

    @property
    def cost_usd(self) -> float:
        """Known part of what all calls have cost."""
        return sum_costs([call.cost_usd for call in self.calls])[0]

    @property
    def unknown_costs(self) -> int:
        """Calls whose cost is unknown."""
        return sum_costs([call.cost_usd for call in self.calls])[1]

    @property
    def reward(self) -> float | None:
        """What the chosen worker's own part came to: nothing where it failed; None where that is not known."""
        if self.is_realised:
            return self.quality
        first = self.calls[0] if self.is_solo and self.calls else None
        is_fault = first is not None and first.worker == self.worker and first.failure not in (None, *NO_FAULTS)
        return 0.0 if is_fault and self.quality is not None else None

    @property
    def is_realised(self) -> bool:
        """Whether the chosen worker itself answered, and nobody else was asked for more."""
        if not (self.is_solo and self.calls):
            return False
        return self.calls[-1].worker == self.worker and self.calls[-1].failure is None


def mean_known(costs: Sequence[float | None], *, of: int | None = None) -> float | None:
    """Mean cost over `of` things (over the costs themselves, if not given); None where any is unknown, or none is."""
    known, unknown = sum_costs(costs)
    count = len(costs) if of is None else of
    return None if unknown or not count else known / count
