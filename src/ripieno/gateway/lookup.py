"""Look-ups of keys that this process does not know: at most one query runs at a time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice

from ripieno.domain import Key
from ripieno.errors import Overloaded, RipienoError

PAUSE_S = 0.05
"""Least seconds between two queries: at most 20 queries a second."""
MOST_AT_ONCE = 500
"""Digests in one query; SQLite allows 32,766 parameters, older versions 999."""
MOST_WAITING = 5000
"""Digests that wait; further ones are refused with 503. Each has an open request, so that memory is bounded."""
MOST_MISSING = 4096
MISSING_S = 10.0
"""How long an unknown key is remembered as unknown; `Keyring.refresh` finds a key that is made meanwhile."""

Read = Callable[[Sequence[str]], dict[str, Key]]


class Lookup:
    """Finds keys by the digest of their secret, off the event loop.

    Args:
        read: returns the existing keys by digest; runs in a thread.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._waiting: dict[str, asyncio.Future[Key | RipienoError | None]] = {}
        self._missing: OrderedDict[str, float] = OrderedDict()
        """When the digest may be looked up again, by the monotonic clock."""
        self._worker: asyncio.Task[None] | None = None
        self._next = 0.0

    async def find(self, digest: str) -> Key | None:
        """Find the key of a digest, also a revoked one; None if there is none.

        Raises:
            Overloaded: too many look-ups wait.
            LedgerError: the keys cannot be read now.
        """
        if self._missing.get(digest, 0.0) > time.monotonic():
            return None
        waiting = self._waiting.get(digest)
        if waiting is None:
            if len(self._waiting) >= MOST_WAITING:
                raise Overloaded("too many unknown keys are being looked up", retry_after_s=1.0)
            waiting = self._waiting[digest] = asyncio.get_running_loop().create_future()
            if self._worker is None:
                self._worker = asyncio.create_task(self._run_queries())
        found = await asyncio.shield(waiting)
        if isinstance(found, RipienoError):
            raise found
        return found

    async def close(self) -> None:
        """Cancel the running look-ups."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
            self._cancel_waiting()  # a task that is cancelled before it starts runs no `finally`

    async def _run_queries(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(max(self._next - time.monotonic(), 0.0))
                batch = tuple(islice(self._waiting, MOST_AT_ONCE))
                self._next = time.monotonic() + PAUSE_S
                try:
                    found = await asyncio.to_thread(self._read, batch)
                except RipienoError as error:
                    for digest in batch:
                        self._waiting.pop(digest).set_result(error)
                    continue
                for digest in batch:
                    self._settle(digest, found.get(digest))
        finally:
            self._cancel_waiting()

    def _cancel_waiting(self) -> None:
        self._worker = None
        for waiting in self._waiting.values():
            waiting.cancel()
        self._waiting.clear()

    def _settle(self, digest: str, key: Key | None) -> None:
        self._waiting.pop(digest).set_result(key)
        if key is None:
            self._missing[digest] = time.monotonic() + MISSING_S
            self._missing.move_to_end(digest)
            if len(self._missing) > MOST_MISSING:
                self._missing.popitem(last=False)
