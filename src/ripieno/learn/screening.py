"""Screening: what leaves in a data set or a checkpoint is read for secrets and personal data before it is written."""

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
"""Places that a refusal names."""
_HINT = "--redact replaces what was found with a mark, --as-is writes it nevertheless"


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A data set with marks in the place of what was found."""

    data: RoutingData
    counts: Mapping[str, int]
    """How often each form was found."""
    places: tuple[str, ...]
    """The prompts and models that held something."""


def screen_data(data: RoutingData, scanner: Scanner) -> Screened:
    """Take secrets and personal data out of the texts of a data set."""
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
    """Refuse a data set in which something was found.

    Raises:
        GateRefused: something was; it says how much of what, and where, and never what it is.
    """
    if screened.counts:
        raise GateRefused(
            f"{screened.data.name!r} holds {tell_counts(screened.counts)} in {len(screened.places)} places: "
            f"{_name(screened.places)}",
            hint=_HINT,
        )


def require_clean_text(name: str, text: str, scanner: Scanner) -> None:
    """Refuse a text in which something was found.

    Raises:
        GateRefused: something was.
    """
    done = scanner.redact(text)
    if done.counts:
        raise GateRefused(f"{name} holds {tell_counts(done.counts)}", hint="take it out, or use --as-is")


def tell_counts(counts: Mapping[str, int]) -> str:
    """How often each form was found, in words."""
    return ", ".join(
        f"{count} x {form}" for form, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _name(places: tuple[str, ...]) -> str:
    more = len(places) - MOST_NAMED
    return ", ".join(places[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _clean_tools(
    tools: tuple[Mapping[str, JsonValue], ...], scanner: Scanner, counts: Counter[str]
) -> tuple[Mapping[str, JsonValue], ...]:
    """Tools without what was found in their texts; none where it cannot be told from its place."""
    if not scanner.find(read_text(tools)):
        return tools
    done = scanner.redact(json.dumps(tools, ensure_ascii=False, default=list))
    counts.update(done.counts)
    try:
        cleaned: list[Mapping[str, JsonValue]] = json.loads(done.text)
    except ValueError:
        return ()
    return () if scanner.find(read_text(cleaned)) else tuple(cleaned)
