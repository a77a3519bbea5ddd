"""Holds: money reserved for current runs. The ledger's database stores them, so that they survive a crash.

A hold lasts from before the first call of a run until the run is recorded. The same transaction adds the cost of the
run to its key's spending and removes the hold. The hold of a killed process counts as spent for its day and month.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from ripieno.domain import Clock, KeyLimits, find_periods
from ripieno.ledger.database import translated_faults
from ripieno.ledger.schema import holds, keys, spend


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Reserve `most_usd` for a run, or the rest of the budget if that is less, but not less than `least_usd`."""

    run: str
    key: str
    limits: KeyLimits
    most_usd: float
    least_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Set the hold of a run to its cost so far and the highest cost of its current calls; None removes the hold."""

    run: str
    usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Result of a reservation."""

    granted_usd: float | None
    """None if too little is left."""
    period: str
    """The limit that binds: `day` or `month`."""
    spent_usd: float
    """Spent and held part of the limit."""
    limit_usd: float


class Holds:
    """Reads and changes holds. Each batch is one transaction, so that two processes never grant the same money."""

    def __init__(self, engine: Engine, *, url: str, clock: Clock) -> None:
        self._engine = engine
        self._reader = engine.execution_options(reads_only=True)
        self._url = url
        self._clock = clock

    def apply(self, batch: Sequence[Reserve | Change]) -> list[Held | None]:
        """Apply a batch in order; return the result of each reservation, and None for each change.

        Raises:
            LedgerError: the database refuses, and nothing of the batch is applied.
        """
        with translated_faults(self._url), self._engine.begin() as connection:
            named = sorted({each.key for each in batch if isinstance(each, Reserve)})
            if named:  # one replica at a time: SQLite has one writer, PostgreSQL locks the rows of these keys
                connection.execute(select(keys.c.id).where(keys.c.id.in_(named)).with_for_update()).all()
            return [self._apply_one(connection, each) for each in batch]

    def read(self) -> dict[str, tuple[str, float, float]]:
        """Return all holds by run: the key, the time of the first reservation, and the amount in US dollars."""
        with translated_faults(self._url), self._reader.connect() as connection:
            return {row.run: (row.key, row.at, row.usd) for row in connection.execute(select(holds))}

    def _apply_one(self, connection: Connection, each: Reserve | Change) -> Held | None:
        if isinstance(each, Reserve):
            return self._reserve(connection, each)
        if each.usd is None:
            connection.execute(delete(holds).where(holds.c.run == each.run))
        else:
            connection.execute(update(holds).where(holds.c.run == each.run).values(usd=each.usd))
        return None

    def _reserve(self, connection: Connection, each: Reserve) -> Held:
        at = self._clock.now()
        tight = min(_read_limits(connection, each, at), key=lambda limit: limit.limit_usd - limit.spent_usd)
        left = tight.limit_usd - tight.spent_usd
        granted = min(each.most_usd, left)
        if granted < each.least_usd or left <= 0.0:
            return tight
        grown = update(holds).where(holds.c.run == each.run).values(usd=holds.c.usd + granted)
        if not connection.execute(grown).rowcount:
            connection.execute(insert(holds).values(run=each.run, key=each.key, at=at, usd=granted))
        return replace(tight, granted_usd=granted)


def _read_limits(connection: Connection, each: Reserve, at: float) -> list[Held]:
    """Return the limits of a key with their spent part: recorded spending, and holds that began in the period."""
    day, month = find_periods(at)
    limits = {day: each.limits.usd_per_day, month: each.limits.usd_per_month}
    query = select(spend.c.period, spend.c.cost_usd).where(spend.c.key == each.key, spend.c.period.in_((day, month)))
    spent: Mapping[str, float] = {row.period: row.cost_usd for row in connection.execute(query)}
    found = []
    for period, limit in limits.items():
        if limit is not None:
            held = select(func.coalesce(func.sum(holds.c.usd), 0.0)).where(
                holds.c.key == each.key, holds.c.at >= begin_period(period)
            )
            taken = spent.get(period, 0.0) + float(connection.execute(held).scalar_one())
            name = "day" if period == day else "month"
            found.append(Held(granted_usd=None, period=name, spent_usd=taken, limit_usd=limit))
    return found


def begin_period(period: str) -> float:
    """Return the start of a UTC day (`2026-11-26`) or month (`2026-11`), in seconds since 1970."""
    day = period if len(period) > 7 else f"{period}-01"
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
