"""Token counts in the names of each wire format. A count that was not sent is unknown, and never zero."""

import math
from collections.abc import Mapping

from ripieno.domain import JsonValue, Usage
from ripieno.wires.base import fields_of


def read_chat_usage(value: JsonValue) -> Usage:
    """Read counts in the names of chat completions, and the price if the provider states one."""
    usage = fields_of(value)
    read, written = fields_of(usage.get("prompt_tokens_details")), fields_of(usage.get("completion_tokens_details"))
    reasoning = count(written.get("reasoning_tokens"))
    return Usage(
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=_count_output(usage, reasoning),
        cached_tokens=_first(read.get("cached_tokens"), usage.get("prompt_cache_hit_tokens")),
        reasoning_tokens=reasoning,
        cache_write_tokens=_first(read.get("cache_write_tokens"), usage.get("cache_creation_input_tokens")),
        audio_input_tokens=count(read.get("audio_tokens")),
        audio_output_tokens=count(written.get("audio_tokens")),
        cost_usd=_read_cost(usage),
    )


def make_chat_usage(usage: Usage) -> dict[str, JsonValue]:
    """Make the counts in the names of chat completions."""
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    counts: dict[str, JsonValue] = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }
    if usage.cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts


def read_messages_usage(value: JsonValue, *, before: Usage | None = None) -> Usage:
    """Read counts in Anthropic's names, which count cached tokens apart.

    Args:
        value: the counts.
        before: earlier counts of the same answer; they stand for counts that are missing here.
    """
    usage, known = fields_of(value), before or Usage()
    cached, kept = count(usage.get("cache_read_input_tokens")), count(usage.get("cache_creation_input_tokens"))
    plain = count(usage.get("input_tokens"))
    total = None if plain is None else plain + (cached or 0) + (kept or 0)
    written = count(usage.get("output_tokens"))
    reasoning = count(fields_of(usage.get("output_tokens_details")).get("thinking_tokens"))
    return Usage(
        input_tokens=known.input_tokens if total is None else total,
        output_tokens=known.output_tokens if written is None else written,
        cached_tokens=known.cached_tokens if cached is None else cached,
        cache_write_tokens=known.cache_write_tokens if kept is None else kept,
        reasoning_tokens=known.reasoning_tokens if reasoning is None else reasoning,
    )


def make_messages_usage(usage: Usage) -> dict[str, JsonValue]:
    """Make the counts in Anthropic's names."""
    cached, kept = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    thought = usage.reasoning_tokens
    return {
        "input_tokens": max((usage.input_tokens or 0) - cached - kept, 0),
        "output_tokens": usage.output_tokens or 0,
        "cache_creation_input_tokens": kept,
        "cache_read_input_tokens": cached,
        "cache_creation": None,
        "inference_geo": None,
        "output_tokens_details": None if thought is None else {"thinking_tokens": thought},
        "server_tool_use": None,
        "service_tier": None,
    }


def read_responses_usage(value: JsonValue) -> Usage:
    """Read counts in the names of responses."""
    usage = fields_of(value)
    read, written = fields_of(usage.get("input_tokens_details")), fields_of(usage.get("output_tokens_details"))
    return Usage(
        input_tokens=count(usage.get("input_tokens")),
        output_tokens=count(usage.get("output_tokens")),
        cached_tokens=count(read.get("cached_tokens")),
        cache_write_tokens=count(read.get("cache_write_tokens")),
        reasoning_tokens=count(written.get("reasoning_tokens")),
        cost_usd=_read_cost(usage),
    )


def make_responses_usage(usage: Usage) -> dict[str, JsonValue]:
    """Make the counts in the names of responses."""
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": read + written,
    }


def read_gemini_usage(value: JsonValue) -> Usage:
    """Read counts in Google's names, which count thoughts apart from the answer."""
    usage = fields_of(value)
    said, thought = count(usage.get("candidatesTokenCount")), count(usage.get("thoughtsTokenCount"))
    asked, tools = count(usage.get("promptTokenCount")), count(usage.get("toolUsePromptTokenCount"))
    return Usage(
        input_tokens=None if asked is None else asked + (tools or 0),
        output_tokens=None if said is None and thought is None else (said or 0) + (thought or 0),
        cached_tokens=count(usage.get("cachedContentTokenCount")),
        reasoning_tokens=thought,
    )


def has_sound_counts(value: JsonValue) -> bool:
    """Return whether counts in the names of chat completions can pass unchanged: both are whole numbers."""
    usage = fields_of(value)
    return type(usage.get("prompt_tokens")) is int and type(usage.get("completion_tokens")) is int


def count(value: JsonValue) -> int | None:
    """Read a count: a whole number of any notation (`11`, `11.0`, `"11"`), not negative."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and value >= 0 else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _count_output(usage: Mapping[str, JsonValue], reasoning: int | None) -> int | None:
    """Count output tokens including reasoning tokens, which some providers count only in the total."""
    asked, said = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    total = count(usage.get("total_tokens"))
    if asked is None or said is None or total is None:
        return said
    hidden = total - asked - said
    return said + hidden if hidden > 0 and reasoning in (None, 0, hidden) else said


def _read_cost(usage: Mapping[str, JsonValue]) -> float | None:
    """Read the price that the provider states, in US dollars: a number from OpenRouter, a table from Perplexity."""
    cost = usage.get("cost")
    stated = _amount(cost.get("total_cost") if isinstance(cost, Mapping) else cost)
    if stated is None or not usage.get("is_byok"):
        return stated
    upstream = _amount(fields_of(usage.get("cost_details")).get("upstream_inference_cost"))
    return None if upstream is None else stated + upstream


def _first(*values: JsonValue) -> int | None:
    counts = [found for found in map(count, values) if found is not None]
    return counts[0] if counts else None


def _amount(value: JsonValue) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0.0 <= float(value) < math.inf else None
