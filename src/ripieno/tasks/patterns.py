"""Patterns: untrusted regular expressions, on an engine whose time is linear in the text (RE2)."""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re2

LONGEST_PATTERN = 2_000
"""Most characters of a pattern."""
MOST_STEPS = 4_000
"""Most instructions of a compiled pattern. Each character of a text costs at most that many steps."""
MEMORY_BYTES = 1 << 20
"""Memory of a compiled pattern with its cache."""
LONGEST_TEXT = 64 * 1024
"""Characters of a text that are matched."""


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> "re2._Regexp[str]":
    """Compile a pattern.

    Raises:
        ValueError: the engine refuses the pattern. The message names the construct.
    """
    import re2

    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"the pattern has {len(pattern)} characters; the limit is {LONGEST_PATTERN}")
    options = re2.Options()
    options.max_mem = MEMORY_BYTES
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0]
        said = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(f"the pattern {pattern[:60]!r} is refused: {_explain(said)}") from error
    except UnicodeEncodeError as error:
        raise ValueError("the pattern contains half of a surrogate pair, which is not a character") from error
    if compiled.programsize > MOST_STEPS:
        raise ValueError(f"the pattern {pattern[:60]!r} has {compiled.programsize} steps; the limit is {MOST_STEPS}")
    return compiled


def matches(pattern: str, text: str) -> bool:
    """Return whether a pattern matches a whole text."""
    return compile_pattern(pattern).fullmatch(_clean(text)) is not None


def occurs(pattern: str, text: str) -> bool:
    """Return whether a pattern matches anywhere in a text."""
    return compile_pattern(pattern).search(_clean(text)) is not None


def _clean(text: str) -> str:
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode()


_CONSTRUCTS = (
    ("(?=", "a lookahead, (?=...), is not supported"),
    ("(?!", "a negative lookahead, (?!...), is not supported"),
    ("(?<=", "a lookbehind, (?<=...), is not supported"),
    ("(?<", "a lookbehind, (?<!...), is not supported"),
    ("(?>", "an atomic group, (?>...), is not supported"),
    ("(?(", "a condition, (?(...), is not supported"),
    ("(?P", "a reference to a group by name, (?P=...), is not supported"),
)


def _explain(said: str) -> str:
    """Return RE2's message, with the name of the construct if other engines support it."""
    what, _, part = said.partition(": ")
    if what == "invalid perl operator":
        return next((named for sign, named in _CONSTRUCTS if part.startswith(sign)), said)
    if what == "invalid escape sequence" and part[1:].isdigit():
        return f"a reference to a group, {part}, is not supported"
    return said
