"""Views: what takes longer than a page may, made beside the pages and shown with its age."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar, cast

from ripieno.domain import Clock
from ripieno.errors import RipienoError

log = logging.getLogger(__name__)

FRESH_S = 60.0
"""A view that is older is made anew when somebody looks."""
MOST_KEPT = 16

View = TypeVar("View")


@dataclass(slots=True)
class Kept(Generic[View]):
    """A view as it is at hand."""

    value: View | None = None
    at: float | None = None
    """When it was made, in seconds since 1970."""
    fault: str = ""
    """Why the latest attempt made none."""
    task: "asyncio.Task[None] | None" = None

    @property
    def is_waiting(self) -> bool:
        """Whether there is nothing to show yet, and something is on its way."""
        return self.value is None and self.task is not None and not self.task.done()


class Views:
    """Keeps views, and makes those anew that are asked for and old."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, Kept[object]] = {}

    def look(self, name: str, make: Callable[[], Awaitable[View]]) -> Kept[View]:
        """The latest view of that name; a new one is begun where it is old or missing."""
        kept = cast(Kept[View], self._kept.setdefault(name, Kept()))
        is_busy = kept.task is not None and not kept.task.done()
        if not is_busy and (kept.at is None or self._clock.now() - kept.at > FRESH_S):
            kept.task = asyncio.create_task(self._make(kept, make))
            kept.task.add_done_callback(partial(self._end, name, kept))
        while len(self._kept) > MOST_KEPT:
            self._drop(next(iter(self._kept)))
        return kept

    async def close(self) -> None:
        """End what is being made."""
        busy = [kept.task for kept in self._kept.values() if kept.task is not None]
        for name in list(self._kept):
            self._drop(name)
        await asyncio.gather(*busy, return_exceptions=True)

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name)
        if kept.task is not None:
            kept.task.cancel()

    async def _make(self, kept: Kept[View], make: Callable[[], Awaitable[View]]) -> None:
        try:
            kept.value = await make()
            kept.fault = ""
        except RipienoError as error:
            kept.fault = error.message
        kept.at = self._clock.now()

    def _end(self, name: str, kept: Kept[View], task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("the view %s failed by a fault of ours, or of a plugin", name, exc_info=error)
            kept.fault = f"an internal error ({type(error).__name__})"
            kept.at = self._clock.now()
