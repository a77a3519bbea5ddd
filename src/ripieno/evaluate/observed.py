"""Decisions of traffic with their results, in the form that reports read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ripieno.domain import Call, sum_costs
from ripieno.domain.run import Failure

LEAST_EVIDENCE = 50
"""Judged outcomes, or the effective number of weighted ones, that a statement needs."""
INFERIOR = 0.02
"""Loss in accepted answers that a replacement may have."""
NO_FAULTS = (Failure.CANCELLED, Failure.BUSY)
"""Failures that are no fault of the worker."""
CHEAPER = 0.8
"""Largest share of the other's price at which a worker counts as cheaper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One decision of traffic, and its results."""

    kind: str
    key: str | None
    worker: str
    """The chosen worker."""
    propensity: float
    expected: Mapping[str, float]
    """Expected quality of each eligible worker; empty if the request named the worker."""
    calls: tuple[Call, ...]
    latency_s: float
    is_private: bool
    """Whether the task must not leave the organisation."""
    at: float = 0.0
    """When it was decided, in seconds since 1970."""
    deadline_s: float | None = None
    """Deadline of the answer."""
    project: str = ""
    """Project whose memory it used."""
    step_kinds: Mapping[str, str] = field(default_factory=dict)
    """Operation of each step of a workflow, such as `extract`, by the name that its calls have."""
    is_solo: bool = True
    """Whether one worker had to answer. The result of a workflow says little about a single worker."""
    author: str | None = None
    """Worker whose answer was returned; None if there is none."""
    input_tokens: int | None = None
    """Length of the task, as the first call counted it."""
    quality: float | None = None
    """Judged quality, in [0, 1]; None without a verdict."""
    edited: float | None = None
    """Share of the answer that a correction changed; None without a correction."""
    faults: tuple[str, ...] = ()
    """Tools with a failed result in the task."""
    tools: tuple[str, ...] = ()
    """Tools with a result in the task."""
    tool_calls: int = 0
    """Tool calls in the answer."""
    bad_tool_calls: int = 0
    """Tool calls with a tool that was not offered, or with arguments that do not fit."""

    @property
    def tokens(self) -> int:
        """Return the tokens of all calls."""
        return sum(call.tokens for call in self.calls)

    @property
    def cost_usd(self) -> float:
        """Return the known part of the cost of all calls."""
        return sum_costs([call.cost_usd for call in self.calls])[0]

    @property
    def unknown_costs(self) -> int:
        """Count the calls whose cost is unknown."""
        return sum_costs([call.cost_usd for call in self.calls])[1]

    @property
    def reward(self) -> float | None:
        """Return the reward of the chosen worker itself: 0 if it failed; None if it is unknown."""
        if self.is_realised:
            return self.quality
        first = self.calls[0] if self.is_solo and self.calls else None
        is_fault = first is not None and first.worker == self.worker and first.failure not in (None, *NO_FAULTS)
        return 0.0 if is_fault and self.quality is not None else None

    @property
    def is_realised(self) -> bool:
        """Return whether the chosen worker answered alone."""
        if not (self.is_solo and self.calls):
            return False
        return self.calls[-1].worker == self.worker and self.calls[-1].failure is None


def mean_known(costs: Sequence[float | None], *, of: int | None = None) -> float | None:
    """Return the mean cost over `of` things (default: the costs); None if a cost is unknown, or there is none."""
    known, unknown = sum_costs(costs)
    count = len(costs) if of is None else of
    return None if unknown or not count else known / count
