"""Counts that replicas share: rates and spend of keys, and which workers rest. In process, or in Redis by URL.

If Redis fails, no request is refused for that: each replica counts alone.
"""

import logging
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ripieno.errors import ConfigError
from ripieno.plugins import needs_extra

log = logging.getLogger(__name__)

PREFIX = "ripieno"
PATIENCE_S = 0.5
LONGEST_WAIT_S = 60.0
WINDOW_S = 60.0
MOST_WINDOWS = 10_000
"""A process keeps at most so many counts before it drops the expired ones."""
KEPT_S = 40 * 86_400
"""Redis keeps the spend of a period until no budget needs it any more."""

Result = TypeVar("Result")


class Counts:
    """Counts of one process, without other replicas."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], _Window] = {}

    async def take(self, what: str, key: str, *, most: int, cost: int) -> float:
        """Take some of what a key may use in a minute. Return the seconds to wait, 0 if it was taken.

        A cost of 0 takes nothing: it asks whether any is left.
        """
        now = time.monotonic()
        if len(self._windows) > MOST_WINDOWS:
            self._windows = {name: kept for name, kept in self._windows.items() if now - kept.began < 2 * WINDOW_S}
        window = self._windows.setdefault((what, key), _Window(began=now))
        return window.take(now, most=most, cost=cost)

    async def add_spend(self, key: str, periods: tuple[str, ...], cost_usd: float) -> None:
        """Add to the shared spend of a key; the keyring counts the spend of this process."""

    async def spent(self, key: str, periods: tuple[str, ...]) -> Mapping[str, float]:
        """Return the shared spend of a key by period; empty if replicas share none."""
        return {}

    async def share_resting(self, resting: Mapping[str, float]) -> None:
        """Share with the other replicas which workers rest, and for how many more seconds."""

    async def resting(self) -> Mapping[str, float]:
        """Return the workers that rest at any replica, and for how many more seconds."""
        return {}

    async def close(self) -> None:
        """Close the connections."""


class RedisCounts(Counts):
    """Counts of all replicas, in a Redis or Valkey server.

    Args:
        url: `redis://host:port/database`, or `unix:///path`.

    Raises:
        ConfigError: the URL is wrong, or the extra is not installed.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        with needs_extra("redis", "sharing counts", key="gateway.shared_url"):
            from limits.aio.storage import RedisStorage
            from limits.aio.strategies import SlidingWindowCounterRateLimiter
            from redis.asyncio import Redis
        try:
            self._client = Redis.from_url(url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S)
            scheme = "async+redis+unix" if url.startswith("unix") else f"async+{url.partition(':')[0]}"
            address = f"{scheme}:{url.partition(':')[2]}"
            options = {"connection_pool": self._client.connection_pool}
            storage = RedisStorage(address, implementation="redispy", key_prefix=PREFIX, **options)  # type: ignore[arg-type]  # any option of the client
        except ValueError as error:
            raise ConfigError(f"gateway.shared_url is no Redis address: {error}", key="gateway.shared_url") from error
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._is_lost = False

    async def take(self, what: str, key: str, *, most: int, cost: int) -> float:
        """See `Counts`; without Redis, this process counts alone."""
        found = await self._try(self._take_shared(what, key, most=most, cost=cost))
        return await super().take(what, key, most=most, cost=cost) if found is None else found

    async def add_spend(self, key: str, periods: tuple[str, ...], cost_usd: float) -> None:
        """See `Counts`."""
        pipeline = self._client.pipeline(transaction=False)
        for period in periods:
            name = _name_spend(key, period)
            pipeline.incrbyfloat(name, cost_usd)
            pipeline.expire(name, KEPT_S)
        await self._try(pipeline.execute())

    async def spent(self, key: str, periods: tuple[str, ...]) -> Mapping[str, float]:
        """See `Counts`."""
        found = await self._try(self._client.mget([_name_spend(key, period) for period in periods]))
        known = zip(periods, found or (), strict=False)
        return {period: float(value) for period, value in known if value is not None}

    async def share_resting(self, resting: Mapping[str, float]) -> None:
        """See `Counts`."""
        pipeline = self._client.pipeline(transaction=False)
        for worker, left in resting.items():
            pipeline.set(f"{PREFIX}:resting:{worker}", "1", px=max(int(left * 1000), 1))
        if resting:
            await self._try(pipeline.execute())

    async def resting(self) -> Mapping[str, float]:
        """See `Counts`."""
        return await self._try(self._read_resting()) or {}

    async def close(self) -> None:
        """See `Counts`."""
        await self._client.aclose()

    async def _take_shared(self, what: str, key: str, *, most: int, cost: int) -> float:
        from limits import RateLimitItemPerMinute

        item = RateLimitItemPerMinute(most)
        if cost and await self._limiter.hit(item, what, key, cost=min(cost, most)):
            return 0.0
        stats = await self._limiter.get_window_stats(item, what, key)
        if stats.remaining > 0 and not cost:
            return 0.0
        if stats.remaining > 0 and cost > 1:  # the request ran already: it takes all that is left
            await self._limiter.hit(item, what, key, cost=stats.remaining)
        return min(max(stats.reset_time - time.time(), 1.0), LONGEST_WAIT_S)

    async def _read_resting(self) -> dict[str, float]:
        prefix = f"{PREFIX}:resting:"
        names = [name async for name in self._client.scan_iter(match=f"{prefix}*", count=500)]
        left = [(name.decode().removeprefix(prefix), await self._client.pttl(name)) for name in names]
        return {worker: milliseconds / 1000.0 for worker, milliseconds in left if milliseconds > 0}

    async def _try(self, query: Awaitable[Result]) -> Result | None:
        from redis.exceptions import RedisError

        try:
            found = await query
        except (RedisError, OSError) as error:
            if not self._is_lost:
                log.warning("Redis failed, so each replica counts alone: %s", error)
            self._is_lost = True
            return None
        if self._is_lost:
            log.warning("Redis answers again, and replicas share their counts")
        self._is_lost = False
        return found


@dataclass(slots=True, kw_only=True)
class _Window:
    """What one key used in this minute and in the one before. The limiter in Redis counts in the same way."""

    began: float
    now: int = 0
    before: int = 0

    def take(self, moment: float, *, most: int, cost: int) -> float:
        """Take a cost at a moment; see `Counts.take`."""
        self._move(moment)
        left_s = self.began + WINDOW_S - moment
        free = most - int(self.before * left_s / WINDOW_S) - self.now
        if free >= max(min(cost, most), 1):
            self.now += min(cost, most)
            return 0.0
        if free > 0:  # the request ran already: it takes all that is left
            self.now += free
        return min(max(self._find_wait(left_s, most), 1.0), LONGEST_WAIT_S)

    def _move(self, moment: float) -> None:
        passed = int((moment - self.began) / WINDOW_S)
        if passed:
            self.before, self.now = self.now if passed == 1 else 0, 0
            self.began += passed * WINDOW_S

    def _find_wait(self, left_s: float, most: int) -> float:
        """Return the seconds until one more may be taken."""
        if self.before and self.now < most:
            return left_s - WINDOW_S * (most - self.now) / self.before
        return left_s + WINDOW_S * (1.0 - most / max(self.now, 1))


def _name_spend(key: str, period: str) -> str:
    return f"{PREFIX}:spend:{key}:{period}"
