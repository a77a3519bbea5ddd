"""Baselines that people write instead of learning: a keyword rule, and calling workers in turn until one answers."""

import re

_RULES: tuple[tuple[str, str], ...] = (
    (r"spell|typo|misspell", "speller-deep"),
    (r"positive|negative|sentiment|review", "sentiment-lexicon"),
    (r"\b(weekday|day of the week|date|days)\b|\d{4}-\d{2}-\d{2}", "dates-exact"),
    (r"\bconvert\b|\bkm\b|miles|celsius|pounds|meters|gallons|inches", "units-exact"),
    (r"solve|\b\d*[a-z]\s*[-+]\s*\d+\s*=", "calc-symbolic"),
    (r"letter|reverse|backward|alphabet|upper|vowel|\"", "strings-exact"),
    (r"[-+*/%]|plus|minus|times|sum|product", "calc-symbolic"),
)
OTHERWISE = "smollm2-135m"


def choose_by_keyword(text: str, workers: tuple[str, ...]) -> str:
    """Choose the worker that a hand-written keyword list names."""
    low = text.lower()
    for pattern, worker in _RULES:
        if re.search(pattern, low):
            return worker
    return OTHERWISE if OTHERWISE in workers else workers[0]
