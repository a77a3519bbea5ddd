"""Watch: notices that a file has changed, also twice within one tick of the file system's clock."""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SETTLED_NS = 2_000_000_000
"""Age in nanoseconds from which a time of change is reliable: a later change would have another one."""

Stamp = tuple[int, int, int] | None
"""Time of change, size and inode of a file; None if there is none."""


class _FileState(NamedTuple):
    stamp: Stamp
    digest: bytes
    is_settled: bool
    """Whether the stamp alone tells a later change."""


class Watch:
    """Compares files with their state at the last look.

    Two changes of the same length within a tick leave the same size and time. So the content of a file that has just
    changed is compared, too, as git does with its index ("racily clean" entries).
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files: dict[str, _FileState] = {}
        self.follow(paths)

    def follow(self, paths: Iterable[Path]) -> None:
        """Look at these files from now on. What was seen of the same files before still counts."""
        names = [str(path) for path in paths]
        self._files = {name: self._files.get(name) or _read(name) for name in names}

    def has_changed(self) -> bool:
        """Return whether a file has changed since the last call."""
        is_changed = False
        for name, known in self._files.items():
            if known.is_settled and _stat(name) == known.stamp:
                continue
            found = self._files[name] = _read(name)
            is_changed = is_changed or found[:2] != known[:2]
        return is_changed


def _read(name: str) -> _FileState:
    stamp = _stat(name)
    try:
        digest = hashlib.sha256(Path(name).read_bytes()).digest()
    except OSError:
        digest = b""
    return _FileState(stamp, digest, is_settled=stamp is None or time.time_ns() - stamp[0] > SETTLED_NS)


def _stat(name: str) -> Stamp:
    try:
        found = os.stat(name)  # noqa: PTH116  # a third of the time that a Path takes
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
