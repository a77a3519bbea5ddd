"""Pacer: keeps the mean price of a task at a target, by raising the weight of money while too much is spent."""

EMA = 0.05
STEP = 0.05
CATCH_UP = 0.1
MOST_WEIGHT = 5.0


class Pacer:
    """Dual ascent on the budget constraint: mean cost at most the target.

    The weight follows a moving average of spending, and, more slowly, what was over- or underspent since the start, so
    that the sum is met and not only the present pace.

    Args:
        target_usd: mean cost of a task that the budget allows, in US dollars.

    Source:
        Zinkevich (2003), Online convex programming, for the step; constants of ParetoBandit (2026).
    """

    def __init__(self, target_usd: float) -> None:
        if not target_usd > 0.0:
            raise ValueError(f"target_usd must be positive, got {target_usd!r}")
        self.target_usd = target_usd
        self.spent_usd = 0.0
        self.tasks = 0
        self.unknown = 0
        """Finished tasks whose cost is unknown: the pacer cannot hold their price."""
        self._pace = 1.0
        self._multiplier = 0.0

    @property
    def money_weight(self) -> float:
        """Utility that one more US dollar costs now, at least 0."""
        return self._multiplier / self.target_usd

    def observe(self, cost_usd: float | None) -> None:
        """Take the cost of one finished task; a task of unknown cost is counted apart, and moves nothing."""
        if cost_usd is None:
            self.unknown += 1
            return
        self.tasks += 1
        self.spent_usd += cost_usd
        self._pace += EMA * (cost_usd / self.target_usd - self._pace)
        debt = self.spent_usd / self.target_usd - self.tasks
        step = STEP * (self._pace - 1.0) + CATCH_UP * debt / max(self.tasks, 1 / EMA)
        self._multiplier = min(max(self._multiplier + step, 0.0), MOST_WEIGHT)
