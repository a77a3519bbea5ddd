"""SensitivityRule: one form of a secret or of personal data: a linear-time pattern, and a check of its matches."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ripieno.domain import Sensitivity


class Retry(Enum):
    """Where the search continues after a value that fails its check."""

    START = "start"
    """At the value, which may begin with the name of another."""
    NEXT = "next"
    """After the first character of the value, because a number may follow another."""
    END = "end"
    """After the value: no part of it can pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityRule:
    """One form. Its pattern runs only if a trigger occurs in the text.

    The value is the group of the pattern that matched, or the whole match if the pattern has no group.
    """

    form: str
    """Name in reports and counts."""
    pattern: str
    """Pattern in the syntax of RE2, where letters, digits and `\\b` are those of ASCII."""
    triggers: tuple[str, ...] = ()
    """Texts of which one must occur, in any case."""
    alphabet: str = ""
    """For rules without triggers: rules of one alphabet are searched together, which keeps their automaton small."""
    is_wide: bool = False
    """Whether it finds nothing in ASCII text."""
    check: Callable[[str], bool] | None = None
    """Returns whether a value counts; None accepts each."""
    kind: Sensitivity = Sensitivity.SECRET
    retry: Retry = Retry.END
    trim: Callable[[str], str] | None = None
    """Cuts off text after a value if the pattern takes too much. Returns an empty text if there is no value."""
    goes_on: str = ""
    """Pattern of text that follows the value and is removed with it."""


def list_literals(alternatives: str) -> tuple[str, ...]:
    """List texts of which each match of a pattern contains one: the literal start of each alternative."""
    found = set()
    for each in re.split(r"\|(?![^(]*\))", alternatives):
        plain = each.removeprefix(r"\b")
        head = re.match(r"[\w '-]*", plain)
        assert head is not None
        literal, behind = head.group(), plain[head.end() : head.end() + 1]
        found.add(literal[:-1] if behind == "?" else literal)
    return tuple(sorted(found))
