"""Batch: requests to write rows, gathered for one commit, and how those that wait for them are told."""

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
"""Rows of one group commit: more would make the first one wait."""
PATIENCE_S = 0.05
"""How long a row that nobody waits for may wait for company: the next decision's commit takes it along."""
GAP_S = 0.002
"""Between two commits under load: what comes meanwhile shares one, and a worker's answer takes longer anyway."""

Waiting: TypeAlias = Future[int] | asyncio.Future[int]


@dataclass(slots=True)
class WriteRequest:
    """Rows that wait to be written, and who waits for them: a thread, a task of an event loop, or nobody."""

    rows: Sequence[EntryRow]
    done: Waiting | None
    count: int = 0
    error: BaseException | None = None
    is_probe: bool = False
    """Whether it asks for nothing but whether entries are taken."""

    def settle(self) -> None:
        """Tell who waits; a caller that has left is not told, its rows are written all the same."""
        if self.done is None or self.done.done():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.count)


class Intake:
    """The queue of requests: any thread puts, the writer's thread gathers."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[WriteRequest | None] = SimpleQueue()
        """None marks the end."""
        self._committed_at = 0.0
        self._is_busy = False
        """Whether the latest commit was waited for by more than one."""

    def put(self, request: WriteRequest | None) -> None:
        """Add a request; None is the last."""
        self._queue.put(request)

    def drain(self) -> list[WriteRequest]:
        """Take all that is queued; the mark of the end stays."""
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
        """Take what one commit writes; rows that nobody waits for are given a moment for company.

        Args:
            idle_s: how long to wait for the first request; None waits until there is one.

        Returns:
            The requests, and whether the end was reached.
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

    def note_commit(self, batch: Sequence[WriteRequest]) -> None:
        """Remember when a batch was written, and whether several waited for it: the next one then waits a little."""
        self._committed_at = time.perf_counter()
        self._is_busy = sum(request.done is not None for request in batch) > 1


def take_fresh(batch: Sequence[WriteRequest], known: set[str]) -> list[EntryRow]:
    """Rows of a whole batch that are not recorded yet; each request learns how many of its own."""
    fresh: list[EntryRow] = []
    for request in batch:
        for row in request.rows:
            if row.id not in known:
                known.add(row.id)
                fresh.append(row)
                request.count += 1
    return fresh


def settle_all(batch: Sequence[WriteRequest]) -> None:
    """Wake every waiting thread, and each event loop once for all its tasks."""
    loops: dict[asyncio.AbstractEventLoop, list[WriteRequest]] = {}
    for request in batch:
        if isinstance(request.done, asyncio.Future):
            loops.setdefault(request.done.get_loop(), []).append(request)
        else:
            request.settle()
    for loop, requests in loops.items():
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(_settle_requests, requests)


def _settle_requests(requests: Sequence[WriteRequest]) -> None:
    for request in requests:
        request.settle()
