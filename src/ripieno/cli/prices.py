"""What commands tell of prices: which workers have none, and how old the carried list is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ripieno.domain import Pool


def tell_unknown_prices(pool: Pool) -> str | None:
    """One line on the workers that no budget can use; None where every price is known."""
    unknown = [worker.id for worker in pool if not (worker.price.is_known and worker.price.prices_output)]
    if not unknown:
        return None
    return (
        f"price unknown: {', '.join(unknown)}; no budget can use them: "
        'state input_usd_per_mtok and output_usd_per_mtok, or price = "free"'
    )


def tell_list_date() -> str:
    """One line on the carried price list: prices that changed later are not in it."""
    from ripieno.providers.prices import describe_list

    found = describe_list()
    return f"price list: of {found.changed_on} (genai-prices {found.version}), carried, never fetched"
