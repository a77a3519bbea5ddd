"""Language of a text: fast where it is plainly English, by fastText's model elsewhere.

The model is fastText's `lid.176.ftz`, unchanged; the package carries it (see NOTICE).

Source:
    Joulin et al. (2016), Bag of Tricks for Efficient Text Classification; FastText.zip: Compressing text
    classification models.
"""

import re
from functools import cache
from importlib.resources import as_file, files
from typing import Protocol

CHARACTERS = 400
LEAST_LETTERS = 12
LEAST_SCORE = 0.5
LEAST_ENGLISH = 0.06
"""Share of plainly English words from which on no detector is asked; other languages have nearly none."""

_ENGLISH = frozenset(
    {"the", "and", "is", "of", "what", "how", "to", "with", "for", "this", "that", "which", "are", "you"}
)
_WORDS = re.compile(r"[A-Za-z]+")
_LABEL = "__label__"
MOSTLY = 0.8
"""Share of capital letters from which on a text is read in small ones: capitals pass for Japanese."""


class _Model(Protocol):
    def predict(self, text: str, k: int, threshold: float) -> tuple[tuple[str, ...], tuple[float, ...]]: ...


def detect_language(text: str) -> str | None:
    """Two-letter code of the language (ISO 639-1), or three letters where it has no shorter one; None where unsure."""
    head = " ".join(text[:CHARACTERS].split())
    if sum(map(str.isalpha, head)) < (LEAST_LETTERS if head.isascii() else 4):
        return None
    if head.isascii():
        words = [word.lower() for word in _WORDS.findall(head)]
        if sum(word in _ENGLISH for word in words) >= LEAST_ENGLISH * len(words):
            return "en"
    labels, scores = _load_model().predict(_lower_capitals(head), 1, 0.0)
    return labels[0].removeprefix(_LABEL) if labels and scores[0] >= LEAST_SCORE else None


def _lower_capitals(text: str) -> str:
    letters = [letter for letter in text if letter.isascii() and letter.isalpha()]
    is_loud = text.isupper() or sum(map(str.isupper, letters)) > MOSTLY * len(letters)
    return text.lower() if is_loud else text


@cache
def _load_model() -> _Model:
    import fasttext

    with as_file(files("ripieno.analyze") / "weights" / "lid.176.ftz") as path:
        model: _Model = fasttext.load_model(str(path))
    return model
