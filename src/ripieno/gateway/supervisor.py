"""Supervisor: several serving processes on one socket; a process that dies is restarted."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

log = logging.getLogger(__name__)

SHORT_LIFE_S = 5.0
"""A process that lived shorter is restarted after a pause."""
PAUSE_S = 1.0
ENDS = (signal.SIGINT, signal.SIGTERM)
"""Signals that end the processes."""


class Supervisor:
    """Forks processes, and restarts them until SIGINT or SIGTERM, which it passes on; a second signal kills them.

    Args:
        serve: runs one process, from its number and a function to call when it is ready; returns its exit code.
        on_stop: called at the first signal.
    """

    def __init__(
        self, serve: Callable[[int, Callable[[], None]], int], *, on_stop: Callable[[], None] = lambda: None
    ) -> None:
        self._serve = serve
        self._on_stop = on_stop
        self._children: dict[int, tuple[int, float]] = {}
        self._stopping = threading.Event()
        self._killed_by: int | None = None
        """The second signal."""

    def run(self, count: int, *, on_ready: Callable[[], None]) -> int:
        """Run `count` processes; `on_ready` is called once all are ready.

        Returns:
            0; the code of a process that failed before it was ready; 128 and the number of a second signal.
        """
        for number in ENDS:
            signal.signal(number, self._handle_signal)
        for index in range(count):
            code = self._start(index, waits=True)
            if code:
                was_asked = self._stopping.is_set()
                self._stopping.set()
                self._send(signal.SIGTERM)
                self._watch()
                return self._code if was_asked else code
        if not self._stopping.is_set():
            on_ready()
        self._watch()
        return self._code

    @property
    def _code(self) -> int:
        return 0 if self._killed_by is None else 128 + self._killed_by

    def _watch(self) -> None:
        """Restart processes that die, until the last one has ended."""
        while self._children:
            child, status = os.wait()
            index, started = self._children.pop(child)
            if self._stopping.is_set():
                continue
            log.error("process %d ended with code %d, and is restarted", index, os.waitstatus_to_exitcode(status))
            if time.monotonic() - started < SHORT_LIFE_S:
                self._stopping.wait(PAUSE_S)
            if not self._stopping.is_set():
                self._start(index, waits=False)

    def _start(self, index: int, *, waits: bool) -> int:
        """Fork a process; with `waits`, return its exit code if it fails before it is ready, else 0."""
        reader, writer = os.pipe()
        # A signal before the child has its own handlers would run the parent's handlers there, and be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        child = os.fork()
        if not child:
            self._run_child(index, writer)
        self._children[child] = (index, time.monotonic())
        if self._stopping.is_set():
            os.kill(child, signal.SIGTERM if self._killed_by is None else signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        os.close(writer)
        is_ready = not waits or os.read(reader, 1) == b"+"
        os.close(reader)
        if is_ready:
            return 0
        del self._children[child]
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1

    def _run_child(self, index: int, writer: int) -> NoReturn:
        for number in ENDS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        code = 1
        try:
            code = self._serve(index, lambda: _report_ready(writer))
        finally:
            os._exit(code)

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping.is_set():
            self._killed_by = number
            self._send(signal.SIGKILL)
            return
        self._stopping.set()
        self._send(signal.SIGTERM)
        self._on_stop()

    def _send(self, number: int) -> None:
        for child in tuple(self._children):
            with suppress(ProcessLookupError):  # it ended already
                os.kill(child, number)


def _report_ready(writer: int) -> None:
    try:
        os.write(writer, b"+")
    except BrokenPipeError:
        return  # a restarted process: the parent does not wait
    finally:
        os.close(writer)
