"""List prices from `genai-prices`, by model and address. The list is part of the package; nothing is fetched."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ripieno.domain import FREE, UNKNOWN, Price, Tier

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, Provider

log = logging.getLogger(__name__)

ROUTER_SUFFIXES = (":nitro", ":floor", ":online", ":exacto", ":extended", ":thinking")
"""Suffixes that tell OpenRouter how to choose among the hosts of one model."""
_HOSTED = re.compile(r"(gpt-\d|chatgpt-|o[134](-|$)|claude-|gemini-\d|grok-\d)")
"""Models that only their maker serves. An address that the list does not know is a proxy for it."""
_BEDROCK = re.compile(r"([a-z]{2,6}\.)?(anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen)\.[a-z]")
_FOLDER = re.compile(r"^(.*/)?(models|publishers/[^/]+/models)/")
_RATES = {
    "input_mtok": "input_usd_per_mtok",
    "output_mtok": "output_usd_per_mtok",
    "cache_read_mtok": "cached_usd_per_mtok",
    "cache_write_mtok": "cache_write_usd_per_mtok",
    "input_audio_mtok": "audio_input_usd_per_mtok",
    "output_audio_mtok": "audio_output_usd_per_mtok",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """The price list of the installed package."""

    version: str
    changed_on: date
    """Day of the latest dated price change in the list."""


def find_price(model: str, *, base_url: str | None = None, provider: str | None = None) -> Price:
    """Find the list price of a model; `UNKNOWN` if the list does not contain it.

    Args:
        model: the provider's name for the model; it may contain dates, prefixes and suffixes.
        base_url: address of the provider; without it, the name alone identifies the maker.
        provider: id of the provider in the list, if known without an address.
    """
    if _is_free(model.lower(), base_url):
        return FREE
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    for place, name in _list_candidates(model.lower(), base_url, provider):
        found = _find_model(snapshot, place, name)
        if found is not None:
            price = _read_price(found)
            if price is not None:
                return price
    return UNKNOWN


def describe_list() -> PriceList:
    """Return version and date of the price list."""
    from genai_prices import __version__
    from genai_prices.data import providers
    from genai_prices.types import StartDateConstraint

    days = [
        condition.constraint.start_date
        for provider in providers
        for model in provider.models
        if isinstance(model.prices, list)
        for condition in model.prices
        if isinstance(condition.constraint, StartDateConstraint)
    ]
    today = datetime.now(tz=UTC).date()
    return PriceList(version=__version__, changed_on=max((day for day in days if day <= today), default=today))


def _list_candidates(model: str, base_url: str | None, provider: str | None) -> "Iterator[tuple[Provider, str]]":
    """Yield the list's providers with a name there, the most certain first."""
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    snapshot = get_snapshot()
    places: list[tuple[Provider, str]] = []
    at = _find_place(snapshot, base_url)
    if provider is not None and (named := find_provider_by_id(snapshot.providers, provider)) is not None:
        at = named
    if at is not None:
        places.append((at, model))
        if at.id != "openrouter" and "/" in model:
            places.append((at, model.partition("/")[2]))
    else:
        places += _name_alone(snapshot, model, is_proxied=base_url is not None)
    for place, name in places:
        for spelled in _spell(name):
            yield place, spelled


def _name_alone(snapshot: "DataSnapshot", model: str, *, is_proxied: bool) -> "list[tuple[Provider, str]]":
    """Find the maker by name: by prefix, or, behind a proxy, if only the maker serves the model."""
    from genai_prices.data_snapshot import find_provider_by_id

    prefix, _, rest = model.partition("/")
    if rest:
        prefix = {"gemini": "google", "vertex_ai": "google", "bedrock": "aws"}.get(prefix, prefix)
        named = find_provider_by_id(snapshot.providers, prefix)
        if named is not None and (not is_proxied or _HOSTED.match(rest) or _BEDROCK.match(rest)):
            return [(named, rest)]
    name = _FOLDER.sub("", model)
    if _BEDROCK.match(name):
        return [(place, name) for place in snapshot.providers if place.id == "aws"]
    if is_proxied and not _HOSTED.match(name.removeprefix("ft:")):
        return []
    maker = name.removeprefix("ft:")
    for place in snapshot.providers:
        if place.model_match is not None and place.model_match.is_match(maker):
            return [(place, name)]
    return [(place, name) for place in snapshot.providers if place.id == "openai"]


def _is_free(model: str, base_url: str | None) -> bool:
    """Return whether OpenRouter serves the model for free. The tag `:free` of another server means nothing."""
    is_there = base_url is None or "openrouter.ai" in (urlsplit(base_url).hostname or "")
    return model.endswith(":free") and (is_there or model.startswith("openrouter/"))


def _find_place(snapshot: "DataSnapshot", base_url: str | None) -> "Provider | None":
    if base_url is None or not urlsplit(base_url).hostname:
        return None
    try:
        return snapshot.find_provider(None, None, base_url)
    except LookupError:
        return None


def _spell(name: str) -> Iterator[str]:
    """Yield the spellings of a name in the list, the given one first."""
    yield name
    plain = _FOLDER.sub("", name)
    for suffix in ROUTER_SUFFIXES:
        plain = plain.removesuffix(suffix)
    if plain != name:
        yield plain


def _find_model(snapshot: "DataSnapshot", place: "Provider", name: str) -> "ModelInfo | None":
    found = place.find_model(name, all_providers=snapshot.providers)
    if found is None and name.startswith("ft:"):
        base = ":".join(name.split(":", 2)[:2])
        return next((model for model in place.models if model.id == base), None)
    return found


def _read_price(model: "ModelInfo") -> Price | None:
    """Return the model's price; None if the list has the model without an amount."""
    listed = _choose_prices(model)
    rates = {ours: getattr(listed, theirs) for theirs, ours in _RATES.items()}
    known = {name: value for name, value in rates.items() if value is not None}
    asks, writes = "input_usd_per_mtok" in known, "output_usd_per_mtok" in known
    calls = getattr(listed, "requests_kcount", None)
    if not (asks and (writes or "embed" in model.id)):
        return None
    if not any(_base(value) for value in known.values()):
        return None  # zero without `:free` means unknown
    written = known.get("cache_write_usd_per_mtok")
    if written is not None and _base(written) < _base(known["input_usd_per_mtok"]):
        del known["cache_write_usd_per_mtok"]  # the price of an hour of storage, not of a write
    return Price(
        **{name: _base(value) for name, value in known.items()},  # type: ignore[arg-type]  # rates alone
        usd_per_call=_base(calls) / 1000.0 if calls is not None else 0.0,
        tiers=_read_tiers(known),
    )


def _choose_prices(model: "ModelInfo") -> "ModelPrice":
    """Return the prices of today; the highest if they change with the hour."""
    from genai_prices.types import TimeOfDateConstraint

    now = datetime.now(tz=UTC)
    if isinstance(model.prices, list) and any(isinstance(c.constraint, TimeOfDateConstraint) for c in model.prices):
        return max((each.prices for each in model.prices), key=lambda prices: _base(prices.output_mtok or 0))
    return model.get_prices(now)


def _read_tiers(known: dict[str, object]) -> tuple[Tier, ...]:
    starts = sorted({tier.start for value in known.values() for tier in getattr(value, "tiers", ())})
    return tuple(
        Tier(above_tokens=start, **{name: _rate_above(value, start) for name, value in known.items()})
        for start in starts
    )


def _rate_above(value: object, start: int) -> float:
    """Return the rate of prompts longer than `start` tokens."""
    above = [tier.price for tier in getattr(value, "tiers", ()) if tier.start <= start]
    return float(above[-1]) if above else _base(value)


def _base(value: object) -> float:
    return float(getattr(value, "base", value))  # type: ignore[arg-type]  # a Decimal, or tiers above one


def complete_price(listed: Price, stated: dict[str, float | None]) -> Price:
    """Override parts of a list price with configured rates. Such a rate applies to prompts of every length."""
    given = {name: value for name, value in stated.items() if value is not None}
    rates = {name: value for name, value in given.items() if name in _RATES.values()}
    tiers = tuple(replace(tier, **rates) for tier in listed.tiers)  # type: ignore[arg-type]  # rates alone
    return replace(listed, tiers=tiers, **given)  # type: ignore[arg-type]  # figures alone
