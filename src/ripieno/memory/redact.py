"""Secrets taken out of a text before anything is kept of it, by the scanner that the boundary has.

Personal data stay: memory is the owner's, and what it holds is scanned again before it leaves.
"""

from ripieno.domain import Sensitivity
from ripieno.privacy import Redacted, make_scanner
from ripieno.privacy.scanner import MARKS

REMOVED = MARKS[Sensitivity.SECRET]


def redact(text: str) -> str:
    """The text with a mark in the place of each secret."""
    return remove_secrets(text).text


def remove_secrets(text: str) -> Redacted:
    """The text with a mark in the place of each secret, and how many of which form there were."""
    return make_scanner(has_personal=False).redact(text)
