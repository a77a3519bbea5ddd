"""Availability: which workers can take a task at this moment, and why the others cannot."""

from collections.abc import Mapping
from datetime import UTC, date, datetime

from ripieno.app.build import find_unavailable
from ripieno.domain import Clock, Pool, Privacy, WorkerId
from ripieno.providers import Lanes, Provider, WorkerHealth
from ripieno.providers.base import find_wire
from ripieno.route import Conditions, find_able

DAY_S = 86_400


class Availability:
    """Reads the health and the limits of the workers of one pool.

    Args:
        pool: the workers.
        providers: the providers by name.
        health: the health of all workers.
        lanes: the calls of all workers.
        clock: the time.
        sensitive: how far sensitive text may travel; None does not restrict it.

    Raises:
        ConfigError: a worker's card is wrong.
    """

    def __init__(
        self,
        pool: Pool,
        providers: Mapping[str, Provider],
        *,
        health: WorkerHealth,
        lanes: Lanes,
        clock: Clock,
        sensitive: Privacy | None,
    ) -> None:
        self._pool = pool
        self._providers = providers
        self._health = health
        self._lanes = lanes
        self._clock = clock
        self._sensitive = sensitive
        self._wires = {w.id: find_wire(providers[w.binding.provider]) for w in pool if w.binding.provider in providers}
        self._today = (0, date.min)
        self.refresh()

    def refresh(self) -> None:
        """Find again which workers cannot be opened here: a key, a package or a file may have been added."""
        self._unavailable = find_unavailable(self._pool, self._providers)

    def conditions(self) -> Conditions:
        """Return the health and the limits of this moment."""
        return Conditions(
            today=self._find_today(),
            unavailable=self._unavailable,
            unhealthy=self._health.unhealthy(),
            rate_limited={**self._health.rate_limited(), **self._lanes.crowded()},
            load=self._lanes.load(),
            sensitive=self._sensitive,
            wires=self._wires,
        )

    def able(self) -> tuple[WorkerId, ...]:
        """Return the workers that can serve now: not muted, deprecated, unavailable or resting after failures."""
        return find_able(self._pool, self.conditions())

    def _find_today(self) -> date:
        day = int(self._clock.now() // DAY_S)
        if self._today[0] != day:
            self._today = (day, datetime.fromtimestamp(day * DAY_S, tz=UTC).date())
        return self._today[1]
