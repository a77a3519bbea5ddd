"""Cheap scalars of a text's form: length, digits, code, options, tools."""

import re

import numpy as np

from ripieno.domain import Vector

NAMES = (
    "log_characters",
    "log_words",
    "lines_share",
    "digits_share",
    "capitals_share",
    "symbols_share",
    "non_ascii_share",
    "has_code",
    "has_maths",
    "questions",
    "has_options",
    "log_tools",
    "log_tool_characters",
    "log_turns",
)

_TESTS = (str.isdigit, str.isalnum, str.isspace, str.isupper)
_ASCII = np.array([[test(chr(code)) for test in _TESTS] for code in range(128)], dtype=np.int64)
_OPTIONS = re.compile(r"\n\(?[A-J][.)]")


def measure_shape(text: str, *, tools: int = 0, tool_characters: int = 0, turns: int = 1) -> Vector:
    """Measure the form of a text, shape (len(NAMES),), all finite."""
    length = max(len(text), 1)
    digits, alphanumerics, spaces, capitals = _count_characters(text)
    values = (
        np.log1p(len(text)),
        np.log1p(len(text.split())),
        100.0 * text.count("\n") / length,
        digits / length,
        capitals / length,
        (len(text) - alphanumerics - spaces) / length,
        (0 if text.isascii() else sum(ord(character) > 127 for character in text)) / length,
        float("```" in text or "def " in text or "Traceback" in text),
        float("\\" in text or "$" in text),
        float(min(text.count("?"), 5)),
        float(_OPTIONS.search(text) is not None),
        np.log1p(tools),
        np.log1p(tool_characters) / 4.0,
        np.log1p(turns),
    )
    return np.array(values, dtype=np.float32)


def _count_characters(text: str) -> tuple[int, ...]:
    """Count digits, letters or digits, spaces and capitals. Plain ASCII is counted by table."""
    if not text.isascii():
        return tuple(sum(map(test, text)) for test in _TESTS)
    counts = np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=len(_ASCII))
    return tuple((counts @ _ASCII).tolist())
