"""Converts routing data and features into a TrainingSet."""

from collections.abc import Sequence

import numpy as np

from ripieno.domain import Features
from ripieno.domain.price import Price
from ripieno.domain.training import TrainingSet, describe_card
from ripieno.domain.worker import WorkerId
from ripieno.tasks.folder import Model, RoutingData


def make_training_set(
    data: RoutingData, features: Sequence[Features], rows: "np.ndarray[tuple[int], np.dtype[np.int64]]"
) -> TrainingSet:
    """Gather the outcomes of some prompts.

    The features belong to the prompts in `rows`, in that order.
    """
    return TrainingSet(
        features=tuple(features),
        workers=tuple(WorkerId(model.id) for model in data.models),
        quality=data.matrix(data.quality)[rows],
        counts=data.counts()[rows],
        cost_usd=data.matrix(data.cost_usd)[rows],
        latency_s=data.matrix(data.latency_s)[rows],
        output_tokens=data.matrix(data.output_tokens)[rows],
        groups=tuple(data.prompts[row].group or data.prompts[row].text for row in rows),
        domains=tuple(data.prompts[row].domain for row in rows) if any(p.domain for p in data.prompts) else (),
        cards=np.stack([_describe(model) for model in data.models]),
    )


def _describe(model: Model) -> np.ndarray:
    price = Price(
        input_usd_per_mtok=model.price_in or 0.0,
        output_usd_per_mtok=model.price_out or 0.0,
        is_known=model.price_in is not None and model.price_out is not None,
    )
    return describe_card(price, model.context_window)


def split_repeats(data: RoutingData) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the mean quality of even and of odd repeats, each of shape (n, m); None unless a pair has two."""
    seen: dict[tuple[int, int], int] = {}
    is_odd = np.zeros(len(data.quality), dtype=bool)
    for index, pair in enumerate(zip(data.prompt_index.tolist(), data.model_index.tolist(), strict=True)):
        is_odd[index] = seen.get(pair, 0) % 2 == 1
        seen[pair] = seen.get(pair, 0) + 1
    if max(seen.values(), default=0) < 2:
        return None
    even = data.matrix(np.where(is_odd, np.nan, data.quality))
    odd = data.matrix(np.where(is_odd, data.quality, np.nan))
    return even, odd
