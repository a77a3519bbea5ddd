"""Holds: money that runs under way may still spend. Kept in the ledger's database, so that no crash forgets them.

A hold stands from before the first call of a run until the run is recorded: the same transaction adds what the run has
cost to its key's spend, and removes the hold. The hold of a process that was killed counts as spent for its day and
month.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from ripieno.domain import Clock, KeyLimits, find_periods
from ripieno.ledger.database import translated_faults
from ripieno.ledger.schema import holds, keys, spend


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Hold back `most_usd` for a run, or what is left where that is less, but not under `least_usd`."""

    run: str
    key: str
    limits: KeyLimits
    most_usd: float
    least_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Set what a run holds: what it has cost so far, and what its calls under way may cost; None removes the hold."""

    run: str
    usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What came of a reservation."""

    granted_usd: float | None
    """None where too little is left."""
    period: str
    """Which limit binds: `day` or `month`."""
    spent_usd: float
    """What is spent and held of it already."""
    limit_usd: float


@dataclass(slots=True)
class _SpendingLimit:
    """One limit of one key, within one transaction."""

    period: str
    limit_usd: float
    taken_usd: float


class Holds:
    """Reads and changes holds; each batch is one transaction, so that several processes never grant the same money.

    Args:
        engine: the ledger's database.
        url: its name in errors.
        clock: the time.
    """

    def __init__(self, engine: Engine, *, url: str, clock: Clock) -> None:
        self._engine = engine
        self._reader = engine.execution_options(reads_only=True)
        self._url = url
        self._clock = clock

    def apply(self, batch: Sequence[Reserve | Change]) -> list[Held | None]:
        """Carry out a batch in order; gives what came of each reservation, and None for each change.

        Raises:
            LedgerError: the database refuses; nothing of the batch is done.
        """
        with translated_faults(self._url), self._engine.begin() as connection:
            named = sorted({each.key for each in batch if isinstance(each, Reserve)})
            if named:  # replicas take turns: SQLite has one writer, PostgreSQL locks the rows of these keys
                connection.execute(select(keys.c.id).where(keys.c.id.in_(named)).with_for_update()).all()
            return [self._apply_one(connection, each) for each in batch]

    def read(self) -> dict[str, tuple[str, float, float]]:
        """All holds by run: the key, the time of the first reservation, and the amount in US dollars."""
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
        purses = _read_limits(connection, each, at)
        tight = min(purses, key=lambda purse: purse.limit_usd - purse.taken_usd)
        left = tight.limit_usd - tight.taken_usd
        granted = min(each.most_usd, left)
        told = Held(
            granted_usd=granted if granted >= each.least_usd and left > 0.0 else None,
            period=tight.period,
            spent_usd=tight.taken_usd,
            limit_usd=tight.limit_usd,
        )
        if told.granted_usd is not None:
            grown = update(holds).where(holds.c.run == each.run).values(usd=holds.c.usd + granted)
            if not connection.execute(grown).rowcount:
                connection.execute(insert(holds).values(run=each.run, key=each.key, at=at, usd=granted))
        return told


def _read_limits(connection: Connection, each: Reserve, at: float) -> list[_SpendingLimit]:
    """What is taken of each limit of a key: recorded spend, and holds that began within the period."""
    day, month = find_periods(at)
    limits = {day: each.limits.usd_per_day, month: each.limits.usd_per_month}
    query = select(spend.c.period, spend.c.cost_usd).where(spend.c.key == each.key, spend.c.period.in_((day, month)))
    spent: Mapping[str, float] = {row.period: row.cost_usd for row in connection.execute(query)}
    purses = []
    for period, limit in limits.items():
        if limit is not None:
            held = select(func.coalesce(func.sum(holds.c.usd), 0.0)).where(
                holds.c.key == each.key, holds.c.at >= begin_period(period)
            )
            taken = spent.get(period, 0.0) + float(connection.execute(held).scalar_one())
            purses.append(_SpendingLimit(period="day" if period == day else "month", limit_usd=limit, taken_usd=taken))
    return purses


def begin_period(period: str) -> float:
    """When a UTC day (`2026-11-26`) or month (`2026-11`) begins, in seconds since the epoch."""
    day = period if len(period) > 7 else f"{period}-01"
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
