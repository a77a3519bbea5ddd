"""Batch: requests to write rows, gathered for one commit."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeAlias

from ripieno.ledger.codec import EntryRow

MOST_ROWS = 2000
"""Rows of one group commit; with more, the first one would wait too long."""
PATIENCE_S = 0.05
"""Wait of a row without a waiting caller for a commit that it can share."""
GAP_S = 0.002
"""Seconds between two commits under load, so that several requests share one."""

Waiting: TypeAlias = Future[int] | asyncio.Future[int]


@dataclass(slots=True)
class WriteRequest:
    """Rows to write, with the future of a waiting thread or task."""

    rows: Sequence[EntryRow]
    done: Waiting | None
    """None if no caller waits."""
    count: int = 0
    """Number of rows that were new."""
    error: BaseException | None = None
    is_probe: bool = False
    """True if it only tests whether the database accepts rows."""

    def settle(self) -> None:
        """Complete the future, unless its caller has cancelled it."""
        if self.done is None or self.done.done():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.count)


class Intake:
    """The queue of requests. Any thread puts; the writer's thread gathers."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[WriteRequest | None] = SimpleQueue()
        """None marks the end."""
        self._committed_at = 0.0
        self._is_busy = False
        """True if several callers waited for the latest commit."""
        self.put = self._queue.put

    def drain(self) -> list[WriteRequest]:
        """Remove and return all queued requests; the end mark stays."""
        drained: list[WriteRequest] = []
        is_last = False
        with suppress(Empty):
            while True:
                request = self._queue.get_nowait()
                if request is None:
                    is_last = True
                else:
                    drained.append(request)
        if is_last:
            self._queue.put(None)
        return drained

    def gather(self, idle_s: float | None) -> tuple[list[WriteRequest], bool]:
        """Gather the requests of one commit. Rows without a waiting caller wait `PATIENCE_S` for others.

        Args:
            idle_s: wait for the first request, in seconds; None waits without limit.

        Returns:
            The requests, and whether the end mark was reached.
        """
        batch: list[WriteRequest] = []
        rows = 0
        has_hurry = False
        ready_at = self._committed_at + (GAP_S if self._is_busy else 0.0)
        while rows < MOST_ROWS:
            try:
                request = self._queue.get(block=not has_hurry, timeout=PATIENCE_S if batch else idle_s)
            except Empty:
                break
            if request is None:
                return batch, True
            batch.append(request)
            rows += len(request.rows)
            if request.done is not None and not has_hurry:
                has_hurry = True
                time.sleep(max(ready_at - time.perf_counter(), 0.0))
        return batch, False

    def end_commit(self, batch: Sequence[WriteRequest]) -> None:
        """Remember the time of a commit. If several callers waited for it, the next one starts after `GAP_S`."""
        self._committed_at = time.perf_counter()
        self._is_busy = sum(request.done is not None for request in batch) > 1


def find_new(batch: Sequence[WriteRequest], known: set[str]) -> list[EntryRow]:
    """Return the rows of a batch that are not recorded, and set each request's count of them."""
    fresh: list[EntryRow] = []
    for request in batch:
        for row in request.rows:
            if row.id not in known:
                known.add(row.id)
                fresh.append(row)
                request.count += 1
    return fresh


def settle_all(batch: Sequence[WriteRequest]) -> None:
    """Complete all requests: every waiting thread, and each event loop once for all its tasks."""
    loops: dict[asyncio.AbstractEventLoop, list[WriteRequest]] = {}
    for request in batch:
        if isinstance(request.done, asyncio.Future):
            loops.setdefault(request.done.get_loop(), []).append(request)
        else:
            request.settle()
    for loop, requests in loops.items():
        with suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(_settle_requests, requests)


def _settle_requests(requests: Sequence[WriteRequest]) -> None:
    for request in requests:
        request.settle()
