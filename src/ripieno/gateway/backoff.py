"""Back-off after wrong keys, for each client and for all clients together."""

from collections import OrderedDict
from dataclasses import dataclass

from ripieno.domain import Clock
from ripieno.errors import RateLimited

FREE = 3
"""Wrong keys of one client without a wait, because people mistype."""
FIRST_S, LONGEST_S = 1.0, 60.0
"""The wait after the next wrong key, doubled with each further one."""
KEPT_S = 900.0
"""After this many seconds without a wrong key, a client's count restarts."""
MOST_CLIENTS = 1024
FREE_TOGETHER, EACH_S = 100, 1.0
"""Wrong keys of all clients without a wait, and the seconds after which one is forgotten. So an attacker with many
addresses has one try a second."""


@dataclass(slots=True)
class _Client:
    wrong: int = 0
    at: float = 0.0
    """Time of the latest wrong key."""


class Backoff:
    """Counts wrong keys, by client and of all clients together; its memory is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._together = 0.0
        self._at = clock.monotonic()

    def check(self, client: str) -> None:
        """Let a client try a key.

        Raises:
            RateLimited: the client must wait first, even with the right key: an answer would confirm that it is right.
        """
        wait_s = max(self._wait_of(client), self._wait_together())
        if wait_s > 0:
            raise RateLimited("too many wrong keys were given", retry_after_s=wait_s)

    def note_wrong(self, client: str) -> None:
        """Count a wrong key of a client."""
        now = self._clock.monotonic()
        self._wait_together()  # forgets old ones
        self._together += 1
        known = self._clients.setdefault(client, _Client())
        self._clients.move_to_end(client)
        known.wrong = known.wrong + 1 if now - known.at < KEPT_S else 1
        known.at = now
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)

    def note_right(self, client: str) -> None:
        """Forget a client, which gave the right key."""
        self._clients.pop(client, None)

    def _wait_of(self, client: str) -> float:
        known = self._clients.get(client)
        if known is None or known.wrong < FREE:
            return 0.0
        wait_s = min(FIRST_S * 2.0 ** min(known.wrong - FREE, 16), LONGEST_S)
        return known.at + wait_s - self._clock.monotonic()

    def _wait_together(self) -> float:
        now = self._clock.monotonic()
        self._together = max(self._together - (now - self._at) / EACH_S, 0.0)
        self._at = now
        return max(self._together - FREE_TOGETHER, 0.0) * EACH_S
