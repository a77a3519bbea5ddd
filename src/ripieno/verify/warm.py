"""Warm jail: runs many programs one after the other, each in its own process."""

import contextlib
import os
import select
import subprocess
import threading
import time
import weakref
from typing import IO

from ripieno.verify.jail import INSIDE, START_S, JailLimits, NoJail, end_jail, make_command, name_libraries

SPARE_S = 30.0
"""Seconds beyond a program's own time until its jail is given up."""
LONGEST = 1 << 20


class WarmJail:
    """Runs programs in one jail, which starts with the first program. It is thread-safe.

    Args:
        kind: kind of the requests, a key of `KINDS` in `jailed/server.py`.
    """

    def __init__(self, kind: str, *, seconds: float, limits: JailLimits) -> None:
        self._kind = kind
        self._seconds = seconds
        self._limits = limits
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None

    def run(self, request: bytes) -> tuple[bool, bytes]:
        """Run a program. Return whether it succeeded in time, and its output.

        Raises:
            NoJail: no jail is available or starts, so nothing ran.
        """
        with self._lock:
            server = self._server or self._start()
            assert server.stdin is not None
            try:
                server.stdin.write(len(request).to_bytes(8, "big") + request)
                server.stdin.flush()
                said = _read_frame(server.stdout, time.monotonic() + self._seconds + SPARE_S)
            except (OSError, EOFError):
                self._end()  # the program broke the jail; the next one gets a new jail
                return False, b""
            return said[:1] == b"+", said[1:]

    def close(self) -> None:
        """Kill the jail and all its processes."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            _kill(server)

    def _start(self) -> "subprocess.Popen[bytes]":
        python = [f"{INSIDE}/server.py", self._kind, str(self._limits.memory_bytes), str(self._seconds)]
        command, seccomp = make_command([*python, *name_libraries(self._limits)], self._limits)
        try:
            server = subprocess.Popen(  # noqa: S603  # our own command, in a list
                command,
                env={},
                cwd="/",
                pass_fds=(seccomp,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise NoJail(f"{command[0]} cannot be started: {error}") from error
        finally:
            os.close(seccomp)
        try:
            _read_frame(server.stdout, time.monotonic() + START_S)
        except (OSError, EOFError) as error:
            raise NoJail(f"it did not start: {_kill(server)}") from error
        weakref.finalize(self, _kill, server)
        self._server = server
        return server


def _kill(server: "subprocess.Popen[bytes]") -> str:
    """Kill a jail. Return the last line of its error output."""
    end_jail(server.pid)
    with contextlib.suppress(ValueError, OSError):
        said = server.communicate()[1].decode("utf-8", "replace").strip().splitlines()
        return said[-1][:200] if said else "it gave no reason"
    return "it has ended"


def _read_frame(stream: IO[bytes] | None, ends: float) -> bytes:
    assert stream is not None
    size = int.from_bytes(_read_exactly(stream, 8, ends), "big")
    if size > LONGEST:
        raise EOFError
    return _read_exactly(stream, size, ends)


def _read_exactly(stream: IO[bytes], size: int, ends: float) -> bytes:
    found = b""
    while len(found) < size:
        ready, _, _ = select.select([stream.fileno()], [], [], max(0.0, ends - time.monotonic()))
        part = os.read(stream.fileno(), size - len(found)) if ready else b""
        if not part:
            raise EOFError
        found += part
    return found
