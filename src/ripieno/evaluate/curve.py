"""The cost-quality curve of a router, and of mixes of single workers."""

from dataclasses import dataclass

import numpy as np

STEPS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """Pareto-optimal points of mean cost and mean quality, cheapest first."""

    cost_usd: np.ndarray
    quality: np.ndarray

    def height_at(self, cost_usd: float) -> float:
        """Return the best quality at this mean cost, by mixing neighbours; below the curve, the cheapest point's."""
        return float(np.interp(cost_usd, self.cost_usd, self.quality))

    def price_of(self, quality: float) -> float:
        """Return the least mean cost that reaches this quality, by mixing neighbours; infinite if none does."""
        if quality > self.quality[-1] + 1e-12:
            return float("inf")
        return float(np.interp(quality, self.quality, self.cost_usd))

    def area(self, low: float, high: float) -> float:
        """Return the mean height between two costs: 'AIQ' of RouterBench (Hu et al., 2024)."""
        if high <= low:
            return self.height_at(low)
        grid = np.linspace(low, high, 2000)
        return float(np.interp(grid, self.cost_usd, self.quality).mean())


def sweep_curve(scores: np.ndarray, expected_cost: np.ndarray, quality: np.ndarray, cost: np.ndarray) -> Curve:
    """Sweep the weight of cost from zero until only cost counts.

    Args:
        scores: predicted quality, shape (t, m).
        expected_cost: predicted cost in USD, shape (t, m), or one row, shape (1, m).
        quality: measured quality, shape (t, m).
        cost: measured cost, shape (t, m).
    """
    rows = np.arange(len(quality))
    points = []
    for weight in penalties(expected_cost):
        chosen = np.argmax(scores - weight * expected_cost, axis=1)
        points.append((float(cost[rows, chosen].mean()), float(quality[rows, chosen].mean())))
    cheapest = int(np.argmin(cost.mean(axis=0)))
    points.append((float(cost[:, cheapest].mean()), float(quality[:, cheapest].mean())))
    return hull(points)


def penalties(expected_cost: np.ndarray) -> np.ndarray:
    """List the weights of cost to try, in quality per USD: zero, and a geometric range."""
    scale = max(float(np.nanmean(expected_cost)), 1e-15)
    return np.concatenate([[0.0], np.geomspace(1e-5, 1e4, STEPS) / scale])


def choose_penalty(
    scores: np.ndarray, expected_cost: np.ndarray, quality: np.ndarray, cost: np.ndarray, *, floor: float
) -> float:
    """Choose the weight of cost that spends least while mean quality stays at `floor`; 0 if none does.

    Args:
        scores: predicted quality of tasks that were not learned from, shape (n, m).
        expected_cost: predicted cost in USD, shape (n, m).
        quality: measured quality, shape (n, m), NaN where unknown.
        cost: measured cost, shape (n, m), NaN where unknown.
        floor: mean quality to keep.
    """
    rows, best, least = np.arange(len(quality)), 0.0, np.inf
    for weight in penalties(expected_cost):
        chosen = np.argmax(scores - weight * expected_cost, axis=1)
        spent, reached = np.nanmean(cost[rows, chosen]), np.nanmean(quality[rows, chosen])
        if reached >= floor and spent < least:
            best, least = float(weight), float(spent)
    return best


def gap_recovered(scores: np.ndarray, quality: np.ndarray, *, weak: int, strong: int) -> float:
    """Compute the average performance gap recovered by sending a rising share of tasks to the strong worker.

    Tasks go to it in order of the predicted difference; the area is between always-weak and always-strong.

    Args:
        scores: predicted quality, shape (t, m).
        quality: measured quality, shape (t, m).
        weak: column of the weak worker.
        strong: column of the strong worker.

    Returns:
        0.5 for a random order, NaN where the workers are equally good.

    Source:
        Ong et al. (2024), RouteLLM, section 3.3.
    """
    order = np.argsort(-(scores[:, strong] - scores[:, weak]), kind="stable")
    gains = (quality[:, strong] - quality[:, weak])[order]
    gap = gains.mean()
    if gap <= 0.0:
        return float("nan")
    recovered = np.concatenate([[0.0], np.cumsum(gains)]) / (len(gains) * gap)
    return float(np.trapezoid(recovered, dx=1.0 / len(gains)))


def mix_curve(quality: np.ndarray, cost: np.ndarray) -> Curve:
    """Trace the best mixes of single workers, which need no router."""
    return hull(list(zip(cost.mean(axis=0).tolist(), quality.mean(axis=0).tolist(), strict=True)))


def hull(points: list[tuple[float, float]]) -> Curve:
    """Return the rising part of the upper concave hull; mixing two points reaches all points between them."""
    kept: list[tuple[float, float]] = []
    for point in sorted(set(points), key=lambda p: (p[0], -p[1])):
        if kept and point[1] <= kept[-1][1]:
            continue
        while len(kept) >= 2 and _turns_up(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return Curve(cost_usd=np.array([c for c, _ in kept]), quality=np.array([q for _, q in kept]))


def _turns_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])
