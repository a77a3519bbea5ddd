"""Privacy: one scanner for secrets and personal data, and the modes of private files."""

from ripieno.privacy.boundary import Boundary, tell_kinds
from ripieno.privacy.scanner import Found, Redacted, Scanner, make_scanner

__all__ = ["Boundary", "Found", "Redacted", "Scanner", "make_scanner", "tell_kinds"]
