"""Sessions: which worker has answered the earlier turns of a conversation."""

import hashlib
from collections import OrderedDict

from ripieno.domain import Clock, WorkerId

MOST = 20_000
KEPT_S = 3600.0
"""Providers keep what they have read for five minutes to an hour."""


class Sessions:
    """Remembers the latest conversations; names are kept as digests, apart for each key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, WorkerId]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, session: str, key: str | None) -> WorkerId | None:
        """The worker of a conversation, while its turns follow each other closely enough."""
        known = self._known.get(_digest(session, key))
        if known is None or self._clock.monotonic() - known[0] > KEPT_S:
            return None
        return known[1]

    def note(self, session: str, key: str | None, worker: WorkerId) -> None:
        """A turn was answered."""
        name = _digest(session, key)
        self._known[name] = (self._clock.monotonic(), worker)
        self._known.move_to_end(name)
        if len(self._known) > MOST:
            self._known.popitem(last=False)


def _digest(session: str, key: str | None) -> bytes:
    return hashlib.blake2b(f"{key or ''}\x1f{session}".encode("utf-8", "replace"), digest_size=16).digest()
