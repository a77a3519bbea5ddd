"""Cheap scalars of a text's form: length, digits, code, options, tools."""

import re

import numpy as np

from ripieno.domain import Vector

_TESTS = (str.isdigit, str.isalnum, str.isspace, str.isupper)
_ASCII = np.array([[test(chr(code)) for test in _TESTS] for code in range(128)], dtype=np.int64)
_OPTIONS = re.compile(r"\n\(?[A-J][.)]")


def measure_shape(text: str, *, tools: int = 0, tool_characters: int = 0, turns: int = 1) -> Vector:
    """Measure the form of a text, shape (len(NAMES),), all finite."""
    values = _measure(text, tools=tools, tool_characters=tool_characters, turns=turns)
    return np.array(list(values.values()), dtype=np.float32)


def _measure(text: str, *, tools: int, tool_characters: int, turns: int) -> dict[str, float]:
    length = max(len(text), 1)
    digits, alphanumerics, spaces, capitals = _count_characters(text)
    return {
        "log_characters": np.log1p(len(text)),
        "log_words": np.log1p(len(text.split())),
        "lines_share": 100.0 * text.count("\n") / length,
        "digits_share": digits / length,
        "capitals_share": capitals / length,
        "symbols_share": (len(text) - alphanumerics - spaces) / length,
        "non_ascii_share": (0 if text.isascii() else sum(ord(character) > 127 for character in text)) / length,
        "has_code": float("```" in text or "def " in text or "Traceback" in text),
        "has_maths": float("\\" in text or "$" in text),
        "questions": float(min(text.count("?"), 5)),
        "has_options": float(_OPTIONS.search(text) is not None),
        "log_tools": np.log1p(tools),
        "log_tool_characters": np.log1p(tool_characters) / 4.0,
        "log_turns": np.log1p(turns),
    }


def _count_characters(text: str) -> tuple[int, ...]:
    """Count digits, letters or digits, spaces and capitals. Plain ASCII is counted by table."""
    if not text.isascii():
        return tuple(sum(map(test, text)) for test in _TESTS)
    counts = np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=len(_ASCII))
    return tuple((counts @ _ASCII).tolist())


NAMES = tuple(_measure("", tools=0, tool_characters=0, turns=0))
