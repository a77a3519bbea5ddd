"""Batch: requests to write rows, and how those that wait for them are told."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from ripieno.ledger.codec import Row

Waiting: TypeAlias = Future[int] | asyncio.Future[int]


@dataclass(slots=True)
class Request:
    """Rows that wait to be written, and who waits for them: a thread, a task of an event loop, or nobody."""

    rows: Sequence[Row]
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


def take_fresh(batch: Sequence[Request], known: set[str]) -> list[Row]:
    """Rows of a whole batch that are not recorded yet; each request learns how many of its own."""
    fresh: list[Row] = []
    for request in batch:
        for row in request.rows:
            if row.id not in known:
                known.add(row.id)
                fresh.append(row)
                request.count += 1
    return fresh


def settle_all(batch: Sequence[Request]) -> None:
    """Wake every waiting thread, and each event loop once for all its tasks."""
    loops: dict[asyncio.AbstractEventLoop, list[Request]] = {}
    for request in batch:
        if isinstance(request.done, asyncio.Future):
            loops.setdefault(request.done.get_loop(), []).append(request)
        else:
            request.settle()
    for loop, requests in loops.items():
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(_settle_requests, requests)


def _settle_requests(requests: Sequence[Request]) -> None:
    for request in requests:
        request.settle()
