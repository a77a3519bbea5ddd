"""Sessions: the worker that answered the earlier turns of a conversation."""

import hashlib
from collections import OrderedDict

from ripieno.domain import Clock, WorkerId

MOST = 20_000
KEPT_S = 3600.0
"""Providers cache prompts for five minutes to an hour."""


class Sessions:
    """Remembers the latest conversations, by digests of key and name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, WorkerId]] = OrderedDict()

    def find(self, session: str, key: str | None) -> WorkerId | None:
        """Return the worker of a conversation whose latest turn is less than `KEPT_S` seconds old."""
        known = self._known.get(_digest(session, key))
        if known is None or self._clock.monotonic() - known[0] > KEPT_S:
            return None
        return known[1]

    def remember(self, session: str, key: str | None, worker: WorkerId) -> None:
        """Remember the worker that answered a turn."""
        name = _digest(session, key)
        self._known[name] = (self._clock.monotonic(), worker)
        self._known.move_to_end(name)
        if len(self._known) > MOST:
            self._known.popitem(last=False)


def _digest(session: str, key: str | None) -> bytes:
    return hashlib.blake2b(f"{key or ''}\x1f{session}".encode("utf-8", "replace"), digest_size=16).digest()
