"""Clock: the time as an argument."""

import time
from typing import Protocol


class Clock(Protocol):
    """Returns the time. Tests pass a clock that stands still."""

    def now(self) -> float:
        """Return the seconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Return the seconds since a fixed moment; the value never decreases."""
        ...


class SystemClock:
    """The machine's own clock."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.perf_counter)
