"""Supervisor: several serving processes on one socket; one that dies is started anew."""

import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)

SHORT_LIFE_S = 5.0
"""A process that lived shorter is not started anew at once."""
PAUSE_S = 1.0


def supervise(count: int, serve: Callable[[int, Callable[[], None]], int], *, on_ready: Callable[[], None]) -> int:
    """Fork `count` processes and keep them running until SIGINT or SIGTERM, which they are handed on.

    Args:
        count: how many.
        serve: runs one, told its number and what to call when it is ready; gives its exit code.
        on_ready: called once all are ready.

    Returns:
        0, or the code of a process that failed before it was ready.
    """
    children: dict[int, tuple[int, float]] = {}
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for child in tuple(children):
            os.kill(child, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    for index in range(count):
        reader, writer = os.pipe()
        children[_fork(index, serve, writer)] = (index, time.monotonic())
        os.close(writer)
        is_ready = os.read(reader, 1) == b"+"
        os.close(reader)
        if not is_ready:
            _, status = os.wait()
            stop(signal.SIGTERM, None)
            _wait_all(children)
            return os.waitstatus_to_exitcode(status) or 1
    if not stopping:
        on_ready()
    while children:
        child, status = os.wait()
        index, started = children.pop(child)
        if stopping:
            continue
        log.error("process %d ended with code %d, and is started anew", index, os.waitstatus_to_exitcode(status))
        if time.monotonic() - started < SHORT_LIFE_S:
            time.sleep(PAUSE_S)
        reader, writer = os.pipe()
        children[_fork(index, serve, writer)] = (index, time.monotonic())
        os.close(writer)
        os.close(reader)
    return 0


def _fork(index: int, serve: Callable[[int, Callable[[], None]], int], writer: int) -> int:
    child = os.fork()
    if child:
        return child
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    code = 1
    try:
        code = serve(index, lambda: _tell_ready(writer))
    finally:
        os._exit(code)


def _tell_ready(writer: int) -> None:
    try:
        os.write(writer, b"+")
    except BrokenPipeError:
        return  # started anew: nobody waits
    finally:
        os.close(writer)


def _wait_all(children: dict[int, tuple[int, float]]) -> None:
    while True:
        try:
            child, _ = os.wait()
        except ChildProcessError:
            return
        children.pop(child, None)
