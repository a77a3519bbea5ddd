"""Lines about prices: workers without one, and the date of the bundled list."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ripieno.domain import Pool


def describe_unknown_prices(pool: Pool) -> str | None:
    """Describe the workers that no budget can use; None if every price is known."""
    unknown = [worker.id for worker in pool if not (worker.price.is_known and worker.price.prices_output)]
    if not unknown:
        return None
    return (
        f"price unknown: {', '.join(unknown)}; no budget can use them: "
        'state input_usd_per_mtok and output_usd_per_mtok, or price = "free"'
    )


def describe_list_date() -> str:
    """Describe the bundled price list. It does not contain later price changes."""
    from ripieno.providers.prices import describe_list

    found = describe_list()
    return f"price list: of {found.changed_on} (genai-prices {found.version}), carried, never fetched"
