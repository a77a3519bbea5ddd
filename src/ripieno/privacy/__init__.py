"""Privacy: one scanner for secrets and personal data, and the modes of private files."""

from ripieno.privacy.boundary import Boundary, describe_kinds
from ripieno.privacy.scanner import Redacted, Scanner, SensitiveSpan, make_scanner

__all__ = ["Boundary", "Redacted", "Scanner", "SensitiveSpan", "describe_kinds", "make_scanner"]
