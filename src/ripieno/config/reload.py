"""Which settings a running process takes over when its file changes, and which need a restart."""

from pydantic import BaseModel

from ripieno.config.settings import Settings
from ripieno.errors import ConfigError

RELOADABLE = frozenset(
    {
        "route",
        "conductor",
        "profile",
        "providers",
        "workers",
        "pool.muted",
        "cache.answers",
        "memory.most_tokens",
        "memory.compact_words",
        "memory.compact_worker",
        "memory.extract_worker",
        "gateway.aliases",
        "gateway.max_in_flight",
        "gateway.allow_code_checks",
    }
)
"""Keys, and tables with all their keys, that take effect without a restart."""


def require_reloadable(old: Settings, new: Settings) -> None:
    """Refuse settings that differ from the old ones in a key that a running process cannot change.

    Raises:
        ConfigError: such a key has changed. Its value is not shown, as it may be a secret.
    """
    key = _find_fixed(old, new)
    if key is not None:
        raise ConfigError(
            f"{key} has changed, and a running process cannot change it",
            key=key,
            hint="restart Ripieno, or undo this change: until then none of the file's changes apply",
        )


def _find_fixed(old: BaseModel, new: BaseModel, prefix: str = "") -> str | None:
    for name in type(old).model_fields:
        key, before, after = f"{prefix}{name}", getattr(old, name), getattr(new, name)
        if key in RELOADABLE or before == after:
            continue
        if not isinstance(before, BaseModel):
            return key
        found = _find_fixed(before, after, f"{key}.")
        if found is not None:
            return found
    return None
