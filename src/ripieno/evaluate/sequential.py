"""Sequential test: it may be read after every pair, and stopped at any pair.

Wealth is bet against "the mean difference is at most nothing": E_t = prod (1 + l_i d_i), with bets l_i made from what
was seen before d_i. Under that hypothesis E is a supermartingale, so that P(sup E >= 1 / alpha) <= alpha.

Source:
    Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting; Ville (1939).
"""

MOST_BET = 0.5
PRIOR_COUNT = 10.0
PRIOR_VARIANCE = 0.25


class BettingTest:
    """Tests whether a bounded difference has a mean above a bar.

    Args:
        alpha: chance of a wrong rejection, over all looks together.
        bar: mean that the hypothesis allows, in (-1, 1).
    """

    def __init__(self, *, alpha: float, bar: float = 0.0) -> None:
        self.alpha = alpha
        self.bar = bar
        self.wealth = 1.0
        self.most_wealth = 1.0
        self.pairs = 0
        self.total = 0.0
        self._squares = 0.0

    @property
    def is_rejected(self) -> bool:
        """Return whether the hypothesis is rejected, at this pair or an earlier one."""
        return self.most_wealth >= 1.0 / self.alpha

    @property
    def mean(self) -> float:
        """Return the mean difference so far."""
        return self.total / self.pairs if self.pairs else 0.0

    def update(self, difference: float) -> None:
        """Add one difference, in [-1, 1]."""
        if not -1.0 <= difference <= 1.0:
            raise ValueError(f"difference must be in [-1, 1], got {difference!r}")
        seen = difference - self.bar
        self.wealth *= 1.0 + self._bet() * seen
        self.most_wealth = max(self.most_wealth, self.wealth)
        self.pairs += 1
        self.total += difference
        self._squares += seen * seen

    def _bet(self) -> float:
        """Return the growth-optimal bet for the mean and variance so far, never against the alternative."""
        count = self.pairs + PRIOR_COUNT
        mean = (self.total - self.pairs * self.bar) / count
        second = (self._squares + PRIOR_COUNT * PRIOR_VARIANCE) / count
        return min(max(mean / second, 0.0), MOST_BET / (1.0 + abs(self.bar)))
