"""Rule: one form of a secret or of personal data, as a pattern of linear time and a check of what it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ripieno.domain import Sensitivity


class Retry(Enum):
    """Where the search goes on after a value that did not pass its check."""

    START = "start"
    """At the value: it may begin with the name of another one."""
    NEXT = "next"
    """Behind the first character of the value: a number may stand behind another one."""
    END = "end"
    """Behind the value: no part of it can pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One form; its pattern runs only where a trigger stands in the text.

    The value is the group of the pattern that matched, or the whole match where the pattern has no group.
    """

    form: str
    """What reports and counts call it."""
    pattern: str
    """In the syntax of RE2, where letters, digits and `\\b` are those of ASCII."""
    triggers: tuple[str, ...] = ()
    """Texts of which one must occur, in any case."""
    alphabet: str = ""
    """Of a rule without triggers: rules of one alphabet are looked for together, which keeps their automaton small."""
    is_wide: bool = False
    """Whether it finds nothing in a text of ASCII alone."""
    check: Callable[[str], bool] | None = None
    """Whether a value is one; None takes each."""
    kind: Sensitivity = Sensitivity.SECRET
    retry: Retry = Retry.END
    trim: Callable[[str], str] | None = None
    """Cuts off what stands behind a value whose pattern takes more than one; gives nothing where it is none."""
    goes_on: str = ""
    """Pattern of what is removed together with the value and stands behind it."""
