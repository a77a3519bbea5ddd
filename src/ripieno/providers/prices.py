"""List prices, where `genai-prices` knows the model."""

from ripieno.domain import Price

TOKENS = 1000


def find_price(model: str) -> Price:
    """Price of a model by its usual name; unknown models get a price of zero, marked as unknown.

    The list is the one that the installed package carries; nothing is fetched.
    """
    from genai_prices import Usage, calc_price

    try:
        read = calc_price(Usage(input_tokens=TOKENS), model_ref=model)
        written = calc_price(Usage(output_tokens=TOKENS), model_ref=model)
        reread = calc_price(Usage(input_tokens=TOKENS, cache_read_tokens=TOKENS), model_ref=model)
    except LookupError:
        return Price(is_known=False)
    scale = 1e6 / TOKENS
    return Price(
        input_usd_per_mtok=float(read.total_price) * scale,
        output_usd_per_mtok=float(written.total_price) * scale,
        cached_usd_per_mtok=float(reread.total_price) * scale,
    )
