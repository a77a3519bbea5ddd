"""Secrets taken out of a text before anything is kept of it.

detect-secrets finds them by their form; its entropy detectors are left out, as they take any long word for one.
"""

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detect_secrets.plugins.base import BasePlugin

REMOVED = "[secret removed]"
_ENTROPY = ("Base64 High Entropy String", "Hex High Entropy String", "Public IP (ipv4)")
_FORMS = re.compile(
    r"\b(?:sk|pk|rk|ghp|gho|xox[abp]|glpat|AKIA)[-_]?[A-Za-z0-9_-]{16,}\b"
    r"|(?i:\b(?:api[_-]?key|secret|token|password|passwd)\b\s*[=:]\s*)(?!\[secret)[^\s,;\"']{6,}"
)


def redact(text: str) -> str:
    """The text with a mark in the place of each secret."""
    lines = []
    for line in text.splitlines():
        kept = _FORMS.sub(REMOVED, line)
        for plugin in secret_plugins():
            for secret in plugin.analyze_string(kept):
                if secret and secret != REMOVED:
                    kept = kept.replace(secret, REMOVED)
        lines.append(kept)
    return "\n".join(lines)


@cache
def secret_plugins() -> tuple["BasePlugin", ...]:
    """The detectors of secrets by their forms."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    kinds: dict[str, type[BasePlugin]] = get_mapping_from_secret_type_to_class()
    return tuple(kind() for name, kind in kinds.items() if name not in _ENTROPY)
