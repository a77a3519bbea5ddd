"""TrainingSet: measured outcomes as matrices, the input of every learner."""

from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain.features import Features, Matrix
from ripieno.domain.price import Price
from ripieno.domain.worker import WorkerId

_PRICE_FLOORS = (0.01, 0.01, 1e-7, 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSet:
    """Outcomes of n tasks on m workers; NaN for pairs that were not measured. Repeats are averaged."""

    features: tuple[Features, ...]
    workers: tuple[WorkerId, ...]
    quality: Matrix
    """Mean quality, shape (n, m), in [0, 1]."""
    counts: Matrix
    """Number of samples of each mean, shape (n, m)."""
    cost_usd: Matrix
    """Mean cost, shape (n, m); NaN if unknown."""
    latency_s: Matrix
    """Mean latency, shape (n, m); NaN if unknown."""
    groups: tuple[str, ...]
    """Tasks of one group (same text, or same template) are always on the same side of a split."""
    domains: tuple[str | None, ...] = ()
    """A finer label of each task; empty if the data have none."""
    output_tokens: Matrix | None = None
    """Mean output tokens, shape (n, m); NaN if unknown, None if all are."""
    cards: Matrix | None = None
    """Facts of each worker's card, shape (m, f), made by `describe_card`; None without cards."""

    def __post_init__(self) -> None:
        shape = (len(self.features), len(self.workers))
        for name in ("quality", "counts", "cost_usd", "latency_s"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        if len(self.groups) != shape[0]:
            raise ValueError(f"groups must name {shape[0]} tasks, got {len(self.groups)}")
        if self.domains and len(self.domains) != shape[0]:
            raise ValueError(f"domains must name {shape[0]} tasks, got {len(self.domains)}")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def kinds(self) -> tuple[str | None, ...]:
        """Return the stated kind of each task."""
        return tuple(features.kind for features in self.features)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """Return kind and domain of each task as one label."""
        if not self.domains:
            return self.kinds
        return tuple(f"{kind}/{domain}" for kind, domain in zip(self.kinds, self.domains, strict=True))

    def take(self, rows: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> "TrainingSet":
        """Return the set of these tasks only, in this order."""
        return replace(
            self,
            features=tuple(self.features[row] for row in rows),
            quality=self.quality[rows],
            counts=self.counts[rows],
            cost_usd=self.cost_usd[rows],
            latency_s=self.latency_s[rows],
            groups=tuple(self.groups[row] for row in rows),
            domains=tuple(self.domains[row] for row in rows) if self.domains else (),
            output_tokens=None if self.output_tokens is None else self.output_tokens[rows],
        )

    def best_single(self) -> int:
        """Return the index of the worker with the highest mean quality over its measured tasks."""
        return find_best_column(self.quality)


def describe_card(price: Price, context_window: int | None) -> Matrix:
    """Return facts of a card, shape (f,): logarithms of four prices and of the context window; NaN if unknown."""
    prices = (price.input_usd_per_mtok, price.output_usd_per_mtok, price.usd_per_cpu_s, price.usd_per_call)
    logs = [np.log(value + floor) for value, floor in zip(prices, _PRICE_FLOORS, strict=True)]
    facts = logs if price.is_known else [np.nan] * len(logs)
    return np.array([*facts, np.nan if context_window is None else np.log(context_window)])


def column_means(matrix: Matrix) -> Matrix:
    """Average each column over its known entries; NaN for a column without any."""
    known = ~np.isnan(matrix)
    counts = known.sum(axis=0)
    sums = np.where(known, matrix, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def find_best_column(matrix: Matrix) -> int:
    """Find the column with the highest mean over its known entries."""
    means = column_means(matrix)
    return int(np.argmax(np.where(np.isnan(means), -np.inf, means)))
