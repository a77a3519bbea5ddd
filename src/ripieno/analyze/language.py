"""Language of a text: a word list recognises plain English fast, and fastText's model detects all others.

The model is fastText's `lid.176.ftz`, unchanged. The package contains it (see NOTICE).

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
"""Share of common English words from which the text counts as English without the model. Other languages have almost
none.
"""

_ENGLISH = frozenset(
    {"the", "and", "is", "of", "what", "how", "to", "with", "for", "this", "that", "which", "are", "you"}
)
_WORDS = re.compile(r"[A-Za-z]+")
_LABEL = "__label__"
MOSTLY = 0.8
"""Share of capital letters from which the text is lower-cased first, because the model takes capitals for Japanese."""


class _FastTextModel(Protocol):
    def predict(self, text: str, k: int, threshold: float) -> tuple[tuple[str, ...], tuple[float, ...]]: ...


def detect_language(text: str) -> str | None:
    """Detect the language: an ISO 639-1 code, a three-letter code if it has no shorter one, or None if unsure."""
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
def _load_model() -> _FastTextModel:
    import fasttext

    with as_file(files("ripieno.analyze") / "weights" / "lid.176.ftz") as path:
        model: _FastTextModel = fasttext.load_model(str(path))
    return model
