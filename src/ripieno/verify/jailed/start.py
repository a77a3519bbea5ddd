"""Limits that every process in a jail sets for itself before it reads untrusted data."""

import os
import resource
import sys
from typing import BinaryIO

FILE_BYTES = 16 * 1024 * 1024
OPEN_FILES = 64
TASKS = 32
"""Most threads and processes of one jail, on kernels that count them per user namespace (Linux 5.14 and later)."""


def confine(*, memory_bytes: int, cpu_s: int | None) -> None:
    """Limit memory, processor time, file size, open files and tasks. The limits cannot be raised again."""
    limits = [
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, TASKS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ]
    if cpu_s is not None:
        limits.append((resource.RLIMIT_CPU, cpu_s))
    for kind, most in limits:
        resource.setrlimit(kind, (most, most))
    sys.set_int_max_str_digits(0)


def silence() -> None:
    """Point stdin, stdout and stderr at /dev/null, so that no output of the program reaches the parent."""
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def read_frame(stream: BinaryIO) -> bytes:
    """Read one frame: its length in 8 bytes, then that many bytes.

    Raises:
        EOFError: the stream ends before the frame does.
    """
    return read_exactly(stream, int.from_bytes(read_exactly(stream, 8), "big"))


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Read `size` bytes.

    Raises:
        EOFError: the stream ends before that.
    """
    parts = []
    while size:
        part = stream.read(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_frame(number: int, content: bytes) -> None:
    """Write one frame to a file descriptor."""
    left = memoryview(len(content).to_bytes(8, "big") + content)
    while left:
        left = left[os.write(number, left) :]
