"""Waiting: a durable queue of items that memory cannot accept now. Retries back off, and each item is written once."""

import fcntl
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ripieno.domain import Clock
from ripieno.domain.memory import NewItem
from ripieno.errors import LedgerError, MemoryUnavailable
from ripieno.ledger.outbox import Spool
from ripieno.privacy.files import make_folder, make_private

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
LARGEST = 64 * 1024 * 1024
"""Most bytes in the queue."""


class Waiting:
    """Waiting items, shared by all processes of an installation."""

    def __init__(self, path: Path, clock: Clock, *, largest: int = LARGEST) -> None:
        self._path = path
        self._clock = clock
        self._largest = largest
        self._pause_s = 0.0
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._open()) if self._path.exists() else 0

    def put(self, items: Sequence[NewItem]) -> None:
        """Store items durably. Each gets a `ref` here, so that it is remembered once.

        Raises:
            MemoryUnavailable: the queue is full, or the file is damaged.
        """
        named = [item if item.ref else replace(item, ref=f"waiting:{os.urandom(16).hex()}") for item in items]
        with self._locked():
            self._open().put(named)

    def drain(self, write: Callable[[Sequence[NewItem]], object]) -> int:
        """Pass all waiting items to `write`, in order, and return their number. After a failure, the pause grows.

        Raises:
            MemoryUnavailable: `write` failed, or the next retry is not due yet.
        """
        if not self._path.exists():
            return 0
        if self._clock.monotonic() < self._not_before:
            raise MemoryUnavailable("memory is unavailable, and the next retry is not due yet")
        with self._locked():
            spool = self._open()
            items = spool.read()
            try:
                if items:
                    write(items)
            except MemoryUnavailable:
                self._pause_s = min(max(2.0 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
                jitter = random.uniform(0.5, 1.0)  # noqa: S311  # so that processes do not retry all at once
                self._not_before = self._clock.monotonic() + jitter * self._pause_s
                raise
            spool.clear()
        self._pause_s = 0.0
        return len(items)

    def _open(self) -> Spool[NewItem]:
        try:
            return Spool(self._path, NewItem, largest=self._largest)
        except LedgerError as error:
            raise MemoryUnavailable(error.message, hint=error.hint) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self._path.parent)
        with make_private(self._path.with_suffix(".lock")).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            except LedgerError as error:
                raise MemoryUnavailable(error.message, hint=error.hint) from error
            except OSError as error:
                raise MemoryUnavailable(f"the queue of items for memory cannot be written: {error}") from error
