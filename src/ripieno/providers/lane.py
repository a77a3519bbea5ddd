"""Lane: who is with one worker, and who waits for it."""

import asyncio

from ripieno.domain import Worker
from ripieno.errors import WorkerBusy

PLACES = 4
"""Calls that may wait for a worker, for each that it takes at once: more would wait longer than anyone has patience."""


class Lane:
    """The calls of one worker; at most `limit` at once, the others wait in order."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._slots = asyncio.Semaphore(limit)
        self._here = 0

    @property
    def load(self) -> float:
        """Calls under way or waiting, for each that the worker takes at once."""
        return self._here / self.limit

    @property
    def is_crowded(self) -> bool:
        """Whether no further call may wait."""
        return self._here >= self.limit * (1 + PLACES)

    def describe(self) -> str:
        """How many there are, in words."""
        return f"{self._here} calls are with it or wait for it, it takes {self.limit} at once"

    async def enter(self, worker: Worker) -> None:
        """Wait for a turn with the worker; `leave` must follow.

        Raises:
            WorkerBusy: too many wait already.
        """
        if self.is_crowded:
            raise WorkerBusy(f"{worker.id!r} is full: {self.describe()}", worker=worker.id, retry_after_s=1.0)
        self._here += 1
        has_turn = False
        try:
            has_turn = await self._slots.acquire()
        finally:
            if not has_turn:
                self._here -= 1

    def leave(self) -> None:
        """The turn is over."""
        self._here -= 1
        self._slots.release()
