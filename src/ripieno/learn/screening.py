"""Screening: finds secrets and personal data in a data set or a checkpoint before it is published."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ripieno.domain import JsonValue
from ripieno.errors import GateRefused
from ripieno.privacy import Scanner
from ripieno.privacy.unpack import read_text
from ripieno.tasks import Prompt, RoutingData

MOST_NAMED = 5
"""Most places that an error names."""
_HINT = "--redact replaces each finding by a mark; --as-is writes the texts unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A data set with marks in place of the findings."""

    data: RoutingData
    counts: Mapping[str, int]
    """Number of findings of each form."""
    places: tuple[str, ...]
    """Prompts and models with findings."""


def screen_data(data: RoutingData, scanner: Scanner) -> Screened:
    """Replace secrets and personal data in the texts of a data set by marks."""
    counts: Counter[str] = Counter()
    places: list[str] = []

    def clean(place: str, text: str) -> str:
        done = scanner.redact(text)
        if done.counts:
            counts.update(done.counts)
            places.append(place)
        return done.text

    def clean_prompt(prompt: Prompt) -> Prompt:
        place = f"prompt {prompt.id!r}"
        tools = _clean_tools(prompt.tools, scanner, counts) if prompt.tools else prompt.tools
        if tools != prompt.tools:
            places.append(f"tools of {place}")
        return replace(prompt, text=clean(place, prompt.text), tools=tools)

    prompts = tuple(map(clean_prompt, data.prompts))
    models = tuple(
        replace(model, description=clean(f"model {model.id!r}", model.description)) if model.description else model
        for model in data.models
    )
    return Screened(data=replace(data, prompts=prompts, models=models), counts=counts, places=tuple(places))


def require_clean(screened: Screened) -> None:
    """Refuse a data set with findings.

    Raises:
        GateRefused: there are findings. The error counts and places them, and never quotes them.
    """
    if screened.counts:
        raise GateRefused(
            f"{screened.data.name!r} holds {describe_counts(screened.counts)} in {len(screened.places)} places: "
            f"{_name(screened.places)}",
            hint=_HINT,
        )


def require_clean_text(name: str, text: str, scanner: Scanner) -> None:
    """Refuse a text with findings.

    Raises:
        GateRefused: there are findings.
    """
    done = scanner.redact(text)
    if done.counts:
        raise GateRefused(f"{name} holds {describe_counts(done.counts)}", hint="remove it, or use --as-is")


def describe_counts(counts: Mapping[str, int]) -> str:
    """Describe the number of findings of each form."""
    return ", ".join(
        f"{count} x {form}" for form, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _name(places: tuple[str, ...]) -> str:
    more = len(places) - MOST_NAMED
    return ", ".join(places[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _clean_tools(
    tools: tuple[Mapping[str, JsonValue], ...], scanner: Scanner, counts: Counter[str]
) -> tuple[Mapping[str, JsonValue], ...]:
    """Redact the texts of tools. Return no tools if findings remain."""
    if not scanner.find(read_text(tools)):
        return tools
    done = scanner.redact(json.dumps(tools, ensure_ascii=False, default=list))
    counts.update(done.counts)
    try:
        cleaned: list[Mapping[str, JsonValue]] = json.loads(done.text)
    except ValueError:
        return ()
    return () if scanner.find(read_text(cleaned)) else tuple(cleaned)
