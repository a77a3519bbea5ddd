"""Which settings a running process takes over when its file changes, and which need a restart."""

from collections.abc import Mapping
from pathlib import Path

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
        "gateway.resume_streams",
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


def has_own_workers(origins: Mapping[str, str]) -> bool:
    """Return whether workers are configured, by the origin of each key; otherwise they are the embedded pool."""
    return any(key.startswith("workers.") and origin != "embedded pool" for key, origin in origins.items())


def require_own_workers(old: Mapping[str, str], new: Mapping[str, str], *, path: Path) -> None:
    """Refuse a file that has lost its workers, so that the embedded pool does not replace them.

    Raises:
        ConfigError: only the old origins have configured workers.
    """
    if has_own_workers(old) and not has_own_workers(new):
        raise ConfigError(
            f"{path} has no workers any more, and the embedded pool does not replace your own",
            key="workers",
            path=str(path),
            hint="write the file whole, or restart to use the embedded pool",
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
