"""The admin key of an installation without a master key: made once, and readable by its owner only."""

import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from ripieno.errors import ConfigError
from ripieno.ledger import KEY_PREFIX
from ripieno.privacy.files import make_folder

log = logging.getLogger(__name__)

FILE = "admin.key"
LEAST = 16
"""Least characters of a key that a person wrote into the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminKey:
    """The admin key, and its file."""

    secret: str
    path: Path
    is_new: bool


def load_admin_key(home: Path) -> AdminKey:
    """Read the admin key of a home folder; create it at the first start, with mode 0600.

    Raises:
        ConfigError: the file cannot be read or written, or holds no key.
    """
    path = home / FILE
    # With the prefix of virtual keys, a gateway with another admin key refuses this key instead of ignoring it.
    secret = f"{KEY_PREFIX}admin-{secrets.token_urlsafe(32)}"
    try:
        make_folder(home)
        place = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return AdminKey(secret=_read(path), path=path, is_new=False)
    except OSError as error:
        raise _make_fault(path, "created", error) from error
    try:
        with os.fdopen(place, "w", encoding="ascii") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _make_fault(path, "created", error) from error
    return AdminKey(secret=secret, path=path, is_new=True)


def _make_fault(path: Path, failed: str, error: Exception) -> ConfigError:
    hint = "check the permissions of the home folder, or set RIPIENO_GATEWAY__API_KEY"
    return ConfigError(f"the admin key {str(path)!r} cannot be {failed}: {error}", path=str(path), hint=hint)


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        secret = path.read_text(encoding="ascii").strip()
        if mode & 0o077:
            log.warning("the admin key %s was readable by others (mode %o); its mode is 0600 now", path, mode & 0o777)
            path.chmod(0o600)
    except (OSError, UnicodeDecodeError) as error:
        raise _make_fault(path, "read", error) from error
    if len(secret) < LEAST or not secret.isprintable() or " " in secret:
        raise ConfigError(
            f"{str(path)!r} holds no key of at least {LEAST} characters",
            path=str(path),
            hint="remove the file: the next start of `ripieno serve` makes a new key",
        )
    return secret
