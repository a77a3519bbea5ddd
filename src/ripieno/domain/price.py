"""Price and Usage: a worker's prices and a call's tokens. An unknown price is None, and never zero."""

from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens in and out (None if unknown), and CPU time of a local worker."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    """Reasoning tokens included."""
    cpu_s: float = 0.0
    cached_tokens: int | None = None
    """Input tokens read from the provider's cache."""
    reasoning_tokens: int | None = None
    """Output tokens that are not in the answer."""
    cache_write_tokens: int | None = None
    """Input tokens written into the provider's cache."""
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    cost_usd: float | None = None
    """The provider's own price, in US dollars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of a million tokens, in US dollars; None charges those tokens like all others."""

    input_usd_per_mtok: float = 0.0
    output_usd_per_mtok: float = 0.0
    cached_usd_per_mtok: float | None = None
    cache_write_usd_per_mtok: float | None = None
    audio_input_usd_per_mtok: float | None = None
    audio_output_usd_per_mtok: float | None = None

    def charge_tokens(self, usage: Usage) -> float:
        """Price the tokens of one call, in US dollars; unknown counts cost nothing."""
        total, written = usage.input_tokens or 0, usage.output_tokens or 0
        usd = total * self.input_usd_per_mtok + written * self.output_usd_per_mtok
        left = total
        for count, rate in (
            (usage.cached_tokens, self.cached_usd_per_mtok),
            (usage.cache_write_tokens, self.cache_write_usd_per_mtok),
            (usage.audio_input_tokens, self.audio_input_usd_per_mtok),
        ):
            if count and rate is not None:
                part = min(count, left)
                left -= part
                usd += part * (rate - self.input_usd_per_mtok)
        if usage.audio_output_tokens and self.audio_output_usd_per_mtok is not None:
            heard = min(usage.audio_output_tokens, written)
            usd += heard * (self.audio_output_usd_per_mtok - self.output_usd_per_mtok)
        return usd / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier(Rates):
    """Prices of a whole call with a long prompt."""

    above_tokens: int
    """The prices apply to prompts of more tokens than this."""


_NO_RATES = ("tiers", "prices_output", "is_known")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Rates):
    """Prices of a worker: tokens of hosted models, CPU seconds of local workers."""

    usd_per_cpu_s: float = 0.0
    usd_per_call: float = 0.0
    tiers: tuple[Tier, ...] = ()
    """Prices of long prompts, lowest limit first."""
    prices_output: bool = True
    """False if only input has a price, as for embeddings."""
    is_known: bool = True
    """False if neither the configuration nor the price list has the model."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in _NO_RATES and value is not None and not value >= 0.0:
                raise ValueError(f"{each.name} must not be negative, got {value!r}")

    @property
    def is_free(self) -> bool:
        """Return whether every call is known to cost nothing."""
        return self == FREE

    def price(self, usage: Usage) -> float | None:
        """Price one call, in US dollars; None if the price is unknown. The provider's own price comes first."""
        if usage.cost_usd is not None:
            return usage.cost_usd
        if not self.is_known or (usage.output_tokens and not self.prices_output):
            return None
        tokens = self.rates_of(usage.input_tokens or 0).charge_tokens(usage)
        return self.usd_per_call + tokens + usage.cpu_s * self.usd_per_cpu_s

    def charge(
        self, *, input_tokens: float, output_tokens: float, cpu_s: float, cached_tokens: float = 0.0
    ) -> float | None:
        """Price a call of these expected lengths, in US dollars; None if the price is unknown."""
        usage = Usage(
            input_tokens=input_tokens,  # type: ignore[arg-type]  # expected lengths are not integers
            output_tokens=output_tokens,  # type: ignore[arg-type]
            cached_tokens=cached_tokens,  # type: ignore[arg-type]
            cpu_s=cpu_s,
        )
        return self.price(usage)

    def rates_of(self, input_tokens: float) -> Rates:
        """Return the token prices of a prompt of this length."""
        above = [tier for tier in self.tiers if input_tokens > tier.above_tokens]
        return above[-1] if above else self


FREE = Price()
"""Price of a worker that is stated to be free."""
UNKNOWN = Price(is_known=False)


def sum_costs(costs: Sequence[float | None]) -> tuple[float, int]:
    """Sum the known costs, in US dollars, and count the unknown ones. With unknown ones, the sum is a lower bound."""
    known = [cost for cost in costs if cost is not None]
    return sum(known), len(costs) - len(known)
