"""Private files: only their owner may read them. Wider modes of earlier versions are narrowed."""

import os
import stat
from contextlib import suppress
from pathlib import Path

FOLDER, FILE = 0o700, 0o600


def make_folder(folder: Path) -> Path:
    """Create a folder that only its owner may enter. An existing folder stays as it is."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=FOLDER)
    return folder


def make_private(path: Path) -> Path:
    """Create an empty file that only its owner may read or write. An existing file is narrowed.

    A file of another owner stays as it is: its owner decides who may read it.

    Raises:
        OSError: the file cannot be created.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE))
    return narrow(path)


def narrow(path: Path) -> Path:
    """Remove all access but the owner's. A file of another owner, or a missing one, stays as it is."""
    with suppress(FileNotFoundError):
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & 0o077:
            path.chmod(found.st_mode & 0o700)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its beginning.

    Raises:
        OSError: the file cannot be written.
    """
    make_private(path).write_bytes(content)


def replace_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all.

    Raises:
        OSError: the file cannot be written. The old file stays.
    """
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        write_private(scratch, content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
