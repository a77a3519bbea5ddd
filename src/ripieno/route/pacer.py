"""Pacer: holds the mean cost of a task at a target. While too much is spent, it raises the weight of money."""

EMA = 0.05
STEP = 0.05
CATCH_UP = 0.1
MOST_WEIGHT = 5.0


class Pacer:
    """Dual ascent on the constraint that the mean cost is at most the target.

    The weight follows a moving average of spending and, more slowly, the difference from the target since the start, so
    that the total is met and not only the current pace.

    Args:
        target_usd: allowed mean cost of a task, in US dollars.

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
        """Finished tasks of unknown cost, which the pacer cannot control."""
        self._pace = 1.0
        self._multiplier = 0.0

    @property
    def money_weight(self) -> float:
        """Return the utility per US dollar, at least 0."""
        return self._multiplier / self.target_usd

    def observe(self, cost_usd: float | None) -> None:
        """Record the cost of one finished task. A task of unknown cost is only counted."""
        if cost_usd is None:
            self.unknown += 1
            return
        self.tasks += 1
        self.spent_usd += cost_usd
        self._pace += EMA * (cost_usd / self.target_usd - self._pace)
        debt = self.spent_usd / self.target_usd - self.tasks
        step = STEP * (self._pace - 1.0) + CATCH_UP * debt / max(self.tasks, 1 / EMA)
        self._multiplier = min(max(self._multiplier + step, 0.0), MOST_WEIGHT)
