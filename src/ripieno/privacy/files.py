"""Files that only their owner may read: made so, and made so again where an earlier version made them wider."""

import os
import stat
from contextlib import suppress
from pathlib import Path

FOLDER, FILE = 0o700, 0o600


def make_folder(folder: Path) -> Path:
    """Make a folder that only its owner may enter; one that is there already stays as it is."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=FOLDER)
    return folder


def make_private(path: Path) -> Path:
    """Make a file, empty, that only its owner may read or write; one that is there already is narrowed.

    A file of somebody else stays as it is: whoever made it decides who reads it.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE))
    return narrow(path)


def narrow(path: Path) -> Path:
    """Take a file away from everybody but its owner; a file of somebody else, or none, stays as it is."""
    with suppress(FileNotFoundError):
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & 0o077:
            path.chmod(found.st_mode & 0o700)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its beginning.

    Raises:
        OSError: it cannot be written.
    """
    make_private(path).write_bytes(content)
