"""Privacy: one scanner for secrets and personal data, and the modes of private files."""

from ripieno.privacy.boundary import Boundary
from ripieno.privacy.scanner import Found, Redacted, Scanner

__all__ = ["Boundary", "Found", "Redacted", "Scanner"]
