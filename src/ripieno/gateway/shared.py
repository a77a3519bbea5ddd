"""What replicas share: rates, spend of keys, and which workers rest. In process, or in Redis by URL.

A Redis that is gone is no reason to refuse anybody: each replica goes on with what it knows itself.
"""

import logging
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from ripieno.errors import ConfigError
from ripieno.plugins import needs_extra

if TYPE_CHECKING:
    from limits.aio.storage import Storage

log = logging.getLogger(__name__)

PREFIX = "ripieno"
PATIENCE_S = 0.5
LONGEST_WAIT_S = 60.0
WINDOW_S = 60.0
MOST_WINDOWS = 10_000
"""Counts that are kept in process before those that have run out are dropped."""
KEPT_S = 40 * 86_400
"""Spend of a period is forgotten when no budget asks for it any more."""

Result = TypeVar("Result")


class Shared(Protocol):
    """Counts that belong to all replicas."""

    async def take(self, what: str, key: str, *, most: int, cost: int) -> float:
        """Take some of what a key may use in a minute; gives the seconds to wait, 0 where it was taken.

        A cost of 0 takes nothing, and tells whether any is left.
        """
        ...

    async def add_spend(self, key: str, periods: tuple[str, ...], cost_usd: float) -> None:
        """Count what a key has spent."""
        ...

    async def spent(self, key: str, periods: tuple[str, ...]) -> Mapping[str, float]:
        """What a key has spent in these periods, where replicas share it; empty where they do not."""
        ...

    async def tell_resting(self, resting: Mapping[str, float]) -> None:
        """Tell the other replicas which workers rest, and for how many seconds more."""
        ...

    async def resting(self) -> Mapping[str, float]:
        """Workers that rest at some replica, and for how many seconds more."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class Local:
    """Counts of one process alone."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], _Window] = {}

    async def take(self, what: str, key: str, *, most: int, cost: int) -> float:
        """See `Shared`."""
        now = time.monotonic()
        if len(self._windows) > MOST_WINDOWS:
            self._windows = {name: kept for name, kept in self._windows.items() if now - kept.began < 2 * WINDOW_S}
        window = self._windows.setdefault((what, key), _Window(began=now))
        return window.take(now, most=most, cost=cost)

    async def add_spend(self, key: str, periods: tuple[str, ...], cost_usd: float) -> None:
        """The keyring counts it itself."""

    async def spent(self, key: str, periods: tuple[str, ...]) -> Mapping[str, float]:
        """Nothing is shared."""
        return {}

    async def tell_resting(self, resting: Mapping[str, float]) -> None:
        """Nobody to tell."""

    async def resting(self) -> Mapping[str, float]:
        """Nobody else."""
        return {}

    async def close(self) -> None:
        """Nothing to release."""


class Redis:
    """Counts in a Redis or Valkey server.

    Args:
        url: `redis://host:port/database`, or `unix:///path`.
    """

    def __init__(self, url: str) -> None:
        with needs_extra("redis", "sharing counts", key="gateway.shared_url"):
            from limits.aio.storage import RedisStorage
            from redis.asyncio import Redis as Client
        try:
            self._client = Client.from_url(url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S)
            scheme = "async+redis+unix" if url.startswith("unix") else f"async+{url.partition(':')[0]}"
            address = f"{scheme}:{url.partition(':')[2]}"
            options = {"connection_pool": self._client.connection_pool}
            storage = RedisStorage(address, implementation="redispy", key_prefix=PREFIX, **options)  # type: ignore[arg-type]  # any option of the client
        except ValueError as error:
            raise ConfigError(f"gateway.shared_url is no Redis address: {error}", key="gateway.shared_url") from error
        self._rates = _Rates(storage)
        self._alone = Local()
        self._is_lost = False

    async def take(self, what: str, key: str, *, most: int, cost: int) -> float:
        """See `Shared`."""
        found = await self._try(self._rates.take(what, key, most=most, cost=cost))
        return await self._alone.take(what, key, most=most, cost=cost) if found is None else found

    async def add_spend(self, key: str, periods: tuple[str, ...], cost_usd: float) -> None:
        """See `Shared`."""
        pipeline = self._client.pipeline(transaction=False)
        for period in periods:
            name = _name_spend(key, period)
            pipeline.incrbyfloat(name, cost_usd)
            pipeline.expire(name, KEPT_S)
        await self._try(pipeline.execute())

    async def spent(self, key: str, periods: tuple[str, ...]) -> Mapping[str, float]:
        """See `Shared`."""
        found = await self._try(self._client.mget([_name_spend(key, period) for period in periods]))
        known = zip(periods, found or (), strict=False)
        return {period: float(value) for period, value in known if value is not None}

    async def tell_resting(self, resting: Mapping[str, float]) -> None:
        """See `Shared`."""
        pipeline = self._client.pipeline(transaction=False)
        for worker, left in resting.items():
            pipeline.set(f"{PREFIX}:resting:{worker}", "1", px=max(int(left * 1000), 1))
        if resting:
            await self._try(pipeline.execute())

    async def resting(self) -> Mapping[str, float]:
        """See `Shared`."""
        found = await self._try(self._read_resting())
        return found or {}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _read_resting(self) -> dict[str, float]:
        prefix = f"{PREFIX}:resting:"
        names = [name async for name in self._client.scan_iter(match=f"{prefix}*", count=500)]
        left = [(name.decode().removeprefix(prefix), await self._client.pttl(name)) for name in names]
        return {worker: milliseconds / 1000.0 for worker, milliseconds in left if milliseconds > 0}

    async def _try(self, asked: Awaitable[Result]) -> Result | None:
        from redis.exceptions import RedisError

        try:
            found = await asked
        except (RedisError, OSError) as error:
            if not self._is_lost:
                log.warning("shared counts are lost, each replica goes on alone: %s", error)
            self._is_lost = True
            return None
        if self._is_lost:
            log.warning("shared counts are back")
        self._is_lost = False
        return found


@dataclass(slots=True, kw_only=True)
class _Window:
    """What one key has used in this minute and in the one before, as the limiter in Redis counts it."""

    began: float
    now: int = 0
    before: int = 0

    def take(self, moment: float, *, most: int, cost: int) -> float:
        """See `Shared.take`."""
        self._move(moment)
        left_s = self.began + WINDOW_S - moment
        free = most - int(self.before * left_s / WINDOW_S) - self.now
        if free >= max(min(cost, most), 1):
            self.now += min(cost, most)
            return 0.0
        if free > 0:  # it was used already: all that is left is gone
            self.now += free
        return min(max(self._find_wait(left_s, most), 1.0), LONGEST_WAIT_S)

    def _move(self, moment: float) -> None:
        passed = int((moment - self.began) / WINDOW_S)
        if passed:
            self.before, self.now = self.now if passed == 1 else 0, 0
            self.began += passed * WINDOW_S

    def _find_wait(self, left_s: float, most: int) -> float:
        """Seconds until one more may be taken."""
        if self.before and self.now < most:
            return left_s - WINDOW_S * (most - self.now) / self.before
        return left_s + WINDOW_S * (1.0 - most / max(self.now, 1))


class _Rates:
    def __init__(self, storage: "Storage") -> None:
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def take(self, what: str, key: str, *, most: int, cost: int) -> float:
        from limits import RateLimitItemPerMinute

        item = RateLimitItemPerMinute(most)
        if cost and await self._limiter.hit(item, what, key, cost=min(cost, most)):
            return 0.0
        stats = await self._limiter.get_window_stats(item, what, key)
        if stats.remaining > 0 and not cost:
            return 0.0
        if stats.remaining > 0 and cost > 1:  # it was used already: all that is left is gone
            await self._limiter.hit(item, what, key, cost=stats.remaining)
        return min(max(stats.reset_time - time.time(), 1.0), LONGEST_WAIT_S)


def _name_spend(key: str, period: str) -> str:
    return f"{PREFIX}:spend:{key}:{period}"


def open_shared(url: str | None) -> Shared:
    """The counts at an address; without, those of this process.

    Raises:
        ConfigError: the address is wrong, or the extra is not installed.
    """
    return Local() if url is None else Redis(url)
