"""Views: results that take longer than a page may, made in the background and shown with their age."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

from ripieno.domain import Clock
from ripieno.errors import RipienoError

log = logging.getLogger(__name__)

FRESH_S = 60.0
"""A page that needs an older view starts to make it again."""
MOST_KEPT = 16

View = TypeVar("View")


@dataclass(slots=True)
class CachedView(Generic[View]):
    """The latest view of one name."""

    value: View | None = None
    at: float | None = None
    """When it was made, in seconds since 1970."""
    fault: str = ""
    """Why the latest attempt made none."""
    task: "asyncio.Task[None] | None" = None

    @property
    def is_waiting(self) -> bool:
        """Whether there is no view yet, and one is being made."""
        return self.value is None and self.task is not None and not self.task.done()


class Views:
    """Keeps views, and makes old ones again when a page needs them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, CachedView[object]] = {}

    def get(self, name: str, make: Callable[[], Awaitable[View]]) -> CachedView[View]:
        """Return the latest view of a name; start a new one if it is old or missing."""
        kept = cast(CachedView[View], self._kept.setdefault(name, CachedView()))
        is_busy = kept.task is not None and not kept.task.done()
        if not is_busy and (kept.at is None or self._clock.now() - kept.at > FRESH_S):
            kept.task = asyncio.create_task(self._make(kept, make))
            kept.task.add_done_callback(partial(self._end, name, kept))
        while len(self._kept) > MOST_KEPT:
            self._drop(next(iter(self._kept)))
        return kept

    async def close(self) -> None:
        """Cancel the views that are being made."""
        busy = [kept.task for kept in self._kept.values() if kept.task is not None]
        for name in list(self._kept):
            self._drop(name)
        await asyncio.gather(*busy, return_exceptions=True)

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name)
        if kept.task is not None:
            kept.task.cancel()

    async def _make(self, kept: CachedView[View], make: Callable[[], Awaitable[View]]) -> None:
        try:
            kept.value = await make()
            kept.fault = ""
        except RipienoError as error:
            kept.fault = error.message
        kept.at = self._clock.now()

    def _end(self, name: str, kept: CachedView[View], task: "asyncio.Task[None]") -> None:
        fault = find_fault(task, f"the view {name}")
        if fault:
            kept.fault, kept.at = fault, self._clock.now()


def find_fault(task: "asyncio.Task[Any]", name: str) -> str:
    """Return why a task that has ended failed, and log an unhandled exception; empty if it succeeded."""
    if task.cancelled():
        return "it was cancelled"
    error = task.exception()
    if error is None or isinstance(error, RipienoError):
        return error.message if error is not None else ""
    log.error("%s failed: unhandled exception in the gateway or a plugin", name, exc_info=error)
    return f"an internal error ({type(error).__name__})"
