"""Holds: money reserved for current runs. The ledger's database stores them, so that they survive a crash.

A hold lasts from before the first call of a run until the run is recorded. The same transaction adds the cost of the
run to its key's spending and removes the hold. The hold of a killed process counts as spent for its day and month.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, bindparam, case, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

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
        """Apply a batch; return the result of each reservation, and None for each change.

        Changes come first, so that the reservations of the batch can use what they free.

        Raises:
            LedgerError: the database refuses, and nothing of the batch is applied.
        """
        with translated_faults(self._url), self._engine.begin() as connection:
            _change(connection, [each for each in batch if isinstance(each, Change)])
            return self._reserve(connection, batch)

    def read(self) -> dict[str, tuple[str, float, float]]:
        """Return all holds by run: the key, the time of the first reservation, and the amount in US dollars."""
        with translated_faults(self._url), self._reader.connect() as connection:
            return {row.run: (row.key, row.at, row.usd) for row in connection.execute(select(holds))}

    def _reserve(self, connection: Connection, batch: Sequence[Reserve | Change]) -> list[Held | None]:
        """Grant the reservations of a batch in order. The limits of each key are read once."""
        named = {each.key for each in batch if isinstance(each, Reserve)}
        if named and connection.dialect.name == "postgresql":  # one replica at a time; SQLite has one writer anyway
            connection.execute(select(keys.c.id).where(keys.c.id.in_(sorted(named))).with_for_update()).all()
        at = self._clock.now()
        taken = {key: _read_taken(connection, key, at) for key in named}
        rows, found = [], []
        for each in batch:
            held = None
            if isinstance(each, Reserve):
                held = _grant(each, taken[each.key])
                if held.granted_usd is not None:
                    taken[each.key] = {period: usd + held.granted_usd for period, usd in taken[each.key].items()}
                    rows.append({"run": each.run, "key": each.key, "at": at, "usd": held.granted_usd})
            found.append(held)
        if rows:
            grow = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(holds)
            grown = {"usd": holds.c.usd + grow.excluded.usd}
            connection.execute(grow.on_conflict_do_update(index_elements=["run"], set_=grown), rows)
        return found


_SET = update(holds).where(holds.c.run == bindparam("name")).values(usd=bindparam("amount"))
_REMOVE = delete(holds).where(holds.c.run == bindparam("name"))
_SPENT = select(spend.c.period, spend.c.cost_usd).where(
    spend.c.key == bindparam("key"), spend.c.period.in_((bindparam("day"), bindparam("month")))
)
_HELD = select(
    func.coalesce(func.sum(case((holds.c.at >= bindparam("day"), holds.c.usd), else_=0.0)), 0.0),
    func.coalesce(func.sum(case((holds.c.at >= bindparam("month"), holds.c.usd), else_=0.0)), 0.0),
).where(holds.c.key == bindparam("key"))


def _change(connection: Connection, changes: Sequence[Change]) -> None:
    """Set or remove holds. The latest change of a run counts."""
    latest = {each.run: each.usd for each in changes}
    kept = [{"name": run, "amount": usd} for run, usd in latest.items() if usd is not None]
    removed = [{"name": run} for run, usd in latest.items() if usd is None]
    if kept:
        connection.execute(_SET, kept)
    if removed:
        connection.execute(_REMOVE, removed)


def _grant(each: Reserve, taken: Mapping[str, float]) -> Held:
    """Grant a reservation as far as the tighter limit of its key allows."""
    limits = {"day": each.limits.usd_per_day, "month": each.limits.usd_per_month}
    tight = min(
        (
            Held(granted_usd=None, period=period, spent_usd=taken[period], limit_usd=limit)
            for period, limit in limits.items()
            if limit is not None
        ),
        key=lambda held: held.limit_usd - held.spent_usd,
    )
    left = tight.limit_usd - tight.spent_usd
    granted = min(each.most_usd, left)
    if granted < each.least_usd or left <= 0.0:
        return tight
    return replace(tight, granted_usd=granted)


def _read_taken(connection: Connection, key: str, at: float) -> dict[str, float]:
    """Return what a key has taken of its day and its month: recorded spending, and holds that began in the period."""
    day, month = find_periods(at)
    spent: Mapping[str, float] = {
        row.period: row.cost_usd for row in connection.execute(_SPENT, {"key": key, "day": day, "month": month})
    }
    begins = {"key": key, "day": begin_period(day), "month": begin_period(month)}
    held_day, held_month = connection.execute(_HELD, begins).one()
    return {"day": spent.get(day, 0.0) + held_day, "month": spent.get(month, 0.0) + held_month}


def begin_period(period: str) -> float:
    """Return the start of a UTC day (`2026-11-26`) or month (`2026-11`), in seconds since 1970."""
    day = period if len(period) > 7 else f"{period}-01"
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
