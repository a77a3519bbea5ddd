"""Loops: background work that repeats beside requests. A failure is logged and counted, and never ends a loop."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Self

from ripieno.domain import Clock

LONGEST_WAIT_S = 60.0
"""Longest back-off. A loop with a longer period waits at most two periods."""
DEGRADED_AFTER = 2
"""Failures in a row after which a loop counts as failing repeatedly."""
STALLED_PERIODS = 10
"""Periods after which a run counts as stalled, if it also takes longer than `LEAST_STALLED_S`."""
LEAST_STALLED_S = 60.0
"""Shortest run that counts as stalled. Memory's canary uses the same minute."""

log = logging.getLogger(__name__)


class LoopState(StrEnum):
    """State of a loop."""

    STARTING = "starting"
    """No run has ended yet."""
    OK = "ok"
    FAILING = "failing"
    """The latest run failed."""
    STALLED = "stalled"
    """The current run takes far longer than it should."""


class Loop:
    """Runs a loop's work and records its results.

    Args:
        name: name of the work, as health and metrics show it.
        every_s: seconds between two runs.
        clock: the time.
        rng: spreads the waits after failures.
    """

    def __init__(self, name: str, *, every_s: float, clock: Clock, rng: random.Random | None = None) -> None:
        self.name = name
        self.every_s = every_s
        self.runs = 0
        """Successful runs."""
        self.failures = 0
        self.failures_in_a_row = 0
        self.last_error: str | None = None
        """Class of the latest failure. Only the log has its message, which may contain secrets and paths."""
        self.succeeded_at: float | None = None
        """End of the latest successful run, in seconds since 1970."""
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  # spreads waits; no secret depends on it
        self._under_way: list[float] = []
        """Start of each current run on the monotonic clock, the oldest first."""

    @property
    def state(self) -> LoopState:
        """Return the current state of the loop."""
        oldest = next(iter(self._under_way), None)
        limit_s = max(STALLED_PERIODS * self.every_s, LEAST_STALLED_S)
        if oldest is not None and self._clock.monotonic() - oldest > limit_s:
            return LoopState.STALLED
        if self.failures_in_a_row:
            return LoopState.FAILING
        return LoopState.OK if self.runs else LoopState.STARTING

    @property
    def is_degraded(self) -> bool:
        """Return whether the loop is stalled, or failed repeatedly."""
        return self.state is LoopState.STALLED or self.failures_in_a_row >= DEGRADED_AFTER

    @property
    def success_age_s(self) -> float | None:
        """Return the seconds since the latest successful run."""
        return None if self.succeeded_at is None else max(self._clock.now() - self.succeeded_at, 0.0)

    def wait_s(self) -> float:
        """Return the seconds until the next run: the period, or after failures a random part of a growing bound."""
        if not self.failures_in_a_row:
            return self.every_s
        most = max(LONGEST_WAIT_S, 2.0 * self.every_s)
        return min(self.every_s * 2.0 ** min(self.failures_in_a_row, 32), most) * self._rng.uniform(0.5, 1.0)

    async def run(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do the work once. Only the cancellation of the loop itself passes through."""
        began = self._begin()
        try:
            await work()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._fail(error)  # something that the work awaited was cancelled
        except Exception as error:  # noqa: BLE001  # plugin code runs here, and every failure is logged
            self._fail(error)
        else:
            self._succeed()
        finally:
            self._under_way.remove(began)

    def run_now(self, work: Callable[[], Exception | None]) -> None:
        """Do the work of a thread once. The work returns a failure that it handled; the first in a row is logged."""
        began = self._begin()
        try:
            fault = work()
        except Exception as error:  # noqa: BLE001  # if the thread ends, all that waits for it hangs
            self._fail(error)
        else:
            if fault is None:
                self._succeed()
            else:
                self._count(fault)
                if self.failures_in_a_row == 1:
                    log.warning("loop %s failed: %s", self.name, fault)
        finally:
            self._under_way.remove(began)

    def _begin(self) -> float:
        began = self._clock.monotonic()
        self._under_way.append(began)
        return began

    def _succeed(self) -> None:
        if self.failures_in_a_row:
            log.warning("loop %s works again after %d failures", self.name, self.failures_in_a_row)
        self.runs += 1
        self.failures_in_a_row = 0
        self.succeeded_at = self._clock.now()

    def _count(self, error: BaseException) -> None:
        self.failures += 1
        self.failures_in_a_row += 1
        self.last_error = type(error).__name__

    def _fail(self, error: BaseException) -> None:
        self._count(error)
        log.error("loop %s failed, %d times in a row", self.name, self.failures_in_a_row, exc_info=error)


class Loops:
    """The loops of one owner: an async context manager that cancels them at the end.

    Args:
        others: loops that run elsewhere, such as the ledger's threads, but are shown with these.
    """

    def __init__(self, others: Sequence[Loop] = ()) -> None:
        self._loops = list(others)
        self._tasks: list[asyncio.Task[None]] = []

    def __iter__(self) -> Iterator[Loop]:
        return iter(self._loops)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self, loop: Loop, work: Callable[[], Awaitable[object]], *, is_due: bool = False) -> None:
        """Start to repeat the work.

        Args:
            loop: the record of its runs, and the period.
            work: one run.
            is_due: True starts the first run at once; False starts it after one period.
        """
        self._loops.append(loop)
        self._tasks.append(asyncio.create_task(_repeat(loop, work, is_due=is_due), name=f"loop {loop.name}"))

    async def close(self) -> None:
        """Cancel all loops that were started here, even during a run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


async def _repeat(loop: Loop, work: Callable[[], Awaitable[object]], *, is_due: bool) -> None:
    wait_s = 0.0 if is_due else loop.every_s
    while True:
        await asyncio.sleep(wait_s)
        await loop.run(work)
        wait_s = loop.wait_s()
