"""Price and Usage: what a worker charges, and what one call used. Money is known or unknown, never zero by accident."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens in and out (None where unknown), and CPU time where the worker runs here."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    """Reasoning tokens included."""
    cpu_s: float = 0.0
    cached_tokens: int | None = None
    """Of the tokens in, those that the provider had read before."""
    reasoning_tokens: int | None = None
    """Of the tokens out, those that are not in the answer."""
    cache_write_tokens: int | None = None
    """Of the tokens in, those that the provider wrote into its cache."""
    audio_input_tokens: int | None = None
    """Of the tokens in, those of sound."""
    audio_output_tokens: int | None = None
    """Of the tokens out, those of sound."""
    cost_usd: float | None = None
    """Price that the provider itself states, in US dollars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of a million tokens, in US dollars; None charges those tokens like all others."""

    input_usd_per_mtok: float = 0.0
    output_usd_per_mtok: float = 0.0
    cached_usd_per_mtok: float | None = None
    """Of input tokens that the provider had read before."""
    cache_write_usd_per_mtok: float | None = None
    """Of input tokens that the provider wrote into its cache."""
    audio_input_usd_per_mtok: float | None = None
    audio_output_usd_per_mtok: float | None = None

    def charge_tokens(self, usage: Usage) -> float:
        """Price of the tokens of one call, in US dollars; unknown counts are none."""
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
    """Prices of a whole call whose prompt is longer than a limit."""

    above_tokens: int
    """Longest prompt, in tokens, to which these prices do not apply."""


_NO_RATES = ("tiers", "prices_output", "is_known")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Rates):
    """What a worker charges. Tokens for hosted models, CPU-seconds for what runs here."""

    usd_per_cpu_s: float = 0.0
    usd_per_call: float = 0.0
    tiers: tuple[Tier, ...] = ()
    """Prices of longer prompts, shortest limit first."""
    prices_output: bool = True
    """False where only reading has a price: embeddings can be charged, answers cannot."""
    is_known: bool = True
    """False where neither the configuration nor the price list knows the model: then nothing can be charged."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in _NO_RATES and value is not None and not value >= 0.0:
                raise ValueError(f"{each.name} must not be negative, got {value!r}")

    @property
    def is_free(self) -> bool:
        """Whether it is known that every call costs nothing."""
        return self == FREE

    def price(self, usage: Usage) -> float | None:
        """Price one call, in US dollars; None where the price is unknown.

        A price that the provider states is taken as it is.
        """
        if usage.cost_usd is not None:
            return usage.cost_usd
        if not self.is_known or (usage.output_tokens and not self.prices_output):
            return None
        tokens = self.rates_of(usage.input_tokens or 0).charge_tokens(usage)
        return self.usd_per_call + tokens + usage.cpu_s * self.usd_per_cpu_s

    def charge(
        self, *, input_tokens: float, output_tokens: float, cpu_s: float, cached_tokens: float = 0.0
    ) -> float | None:
        """Price a call of these lengths, in US dollars; None where the price is unknown."""
        usage = Usage(
            input_tokens=input_tokens,  # type: ignore[arg-type]  # expected lengths are no whole numbers
            output_tokens=output_tokens,  # type: ignore[arg-type]
            cached_tokens=cached_tokens,  # type: ignore[arg-type]
            cpu_s=cpu_s,
        )
        return self.price(usage)

    def rates_of(self, input_tokens: float) -> Rates:
        """Prices of tokens for a prompt of this length."""
        above = [tier for tier in self.tiers if input_tokens > tier.above_tokens]
        return above[-1] if above else self


FREE = Price()
"""Of a worker whose calls cost nothing, as its owner states."""
UNKNOWN = Price(is_known=False)
