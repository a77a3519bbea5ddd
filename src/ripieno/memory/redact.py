"""Removal of secrets from a text before anything of it is stored, by the scanner of the privacy boundary.

Personal data stay: memory belongs to its owner, and its content is scanned again before it leaves.
"""

from ripieno.privacy import Redacted, make_scanner


def redact(text: str) -> str:
    """Replace each secret of a text with a mark."""
    return remove_secrets(text).text


def remove_secrets(text: str) -> Redacted:
    """Replace each secret of a text with a mark, and count the secrets of each form."""
    return make_scanner(has_personal=False).redact(text)
