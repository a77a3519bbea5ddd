"""Lane: the current and waiting calls of one worker."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from ripieno.domain import Worker, WorkerId
from ripieno.errors import WorkerBusy

PLACES = 4
"""Calls that may wait for a worker, per concurrent call. More would wait too long."""


class Lane:
    """The calls of one worker: at most `limit` at once; the others wait in order."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._slots = asyncio.Semaphore(limit)
        self._here = 0

    @property
    def load(self) -> float:
        """Return current and waiting calls, divided by the limit."""
        return self._here / self.limit

    @property
    def is_crowded(self) -> bool:
        """Return whether the queue is full."""
        return self._here >= self.limit * (1 + PLACES)

    def describe(self) -> str:
        """Describe the number of calls in words."""
        return f"{self._here} calls run or wait, and it runs {self.limit} at once"

    @asynccontextmanager
    async def turn(self, worker: Worker) -> AsyncIterator[None]:
        """Wait for a slot of the worker, and hold it while the block runs.

        Raises:
            WorkerBusy: the queue is full.
        """
        if self.is_crowded:
            raise WorkerBusy(f"{worker.id!r} is full: {self.describe()}", worker=worker.id, retry_after_s=1.0)
        self._here += 1
        try:
            async with self._slots:
                yield
        finally:
            self._here -= 1


class Lanes:
    """The lanes of all workers. They outlive a reload of the configuration."""

    def __init__(self) -> None:
        self._lanes: dict[WorkerId, Lane] = {}

    def find(self, worker: Worker) -> Lane:
        """Return the lane of a worker. A changed limit makes a new one."""
        lane = self._lanes.get(worker.id)
        if lane is None or lane.limit != worker.max_concurrency:
            lane = self._lanes[worker.id] = Lane(worker.max_concurrency)
        return lane

    def load(self) -> Mapping[WorkerId, float]:
        """Return current and waiting calls divided by the worker's concurrency, for workers at full load."""
        return {worker: lane.load for worker, lane in self._lanes.items() if lane.load >= 1.0}

    def crowded(self) -> Mapping[WorkerId, str]:
        """Return the workers whose queue is full, with a description."""
        return {worker: lane.describe() for worker, lane in self._lanes.items() if lane.is_crowded}
