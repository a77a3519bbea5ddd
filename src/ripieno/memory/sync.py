"""Syncs: the whole content of a source. A sync that is empty or much smaller than before is put into quarantine."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from sqlalchemy import Connection, delete, func, insert, select

from ripieno.domain.memory import NewItem
from ripieno.errors import DataError
from ripieno.memory.schema import retired, sources, upsert, versions
from ripieno.memory.store import Store

LARGEST_LOSS = 0.5
"""Share of a source's live items that a sync may remove."""


class VersionStatus(StrEnum):
    """Status of a sync."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One sync of a source."""

    source: str
    nth: int
    status: VersionStatus
    items: int
    reason: str = ""
    recorded_at: float


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a source was read."""

    source: str
    seen_at: float | None
    committed_at: float | None
    """Time of the last commit from there."""
    cursor: str
    """Where the next read starts."""


def sync(store: Store, source: str, new: Sequence[NewItem], *, bound: float = LARGEST_LOSS) -> Version:
    """Replace a source's whole content. Missing items are retired, and stay readable as of earlier times.

    If more than the share `bound` of the live items is missing, the last good version stays current.

    Raises:
        DataError: an item has no `ref`.
    """
    if any(not item.ref for item in new):
        raise DataError(f"an item of {source!r} has no ref, which a sync needs to identify it", path=source)
    items = [replace(item, source=source) for item in new]
    now = store.clock.now()
    with store.writing() as connection:
        last = connection.execute(
            select(versions).where(versions.c.source == source, versions.c.status == VersionStatus.CURRENT)
        ).first()
        nth = int(connection.execute(select(func.count()).where(versions.c.source == source)).scalar_one()) + 1
        before: list[str] = json.loads(last.ids) if last is not None else []
        reason = _find_fault(len(items), len(before), bound)
        status = VersionStatus.QUARANTINED if reason else VersionStatus.CURRENT
        version = Version(source=source, nth=nth, status=status, items=len(items), reason=reason, recorded_at=now)
        if reason:
            connection.execute(insert(versions), asdict(version) | {"ids": "[]"})
            return version
        ids = [receipt.id for receipt in store.add(connection, items)]
        if last is not None:
            connection.execute(
                versions.update()
                .where(versions.c.source == source, versions.c.nth == last.nth)
                .values(status=VersionStatus.SUPERSEDED)
            )
        connection.execute(insert(versions), asdict(version) | {"ids": json.dumps(ids)})
        gone = sorted(set(before) - set(ids))
        if gone:
            connection.execute(
                upsert(connection, retired).on_conflict_do_nothing(), [{"id": name, "at": now} for name in gone]
            )
        connection.execute(delete(retired).where(retired.c.id.in_(ids)))
        move_watermark(connection, source, seen_at=now, committed_at=now)
    return version


def list_versions(store: Store, source: str) -> list[Version]:
    """List all syncs of a source, the oldest first."""
    with store.reading() as connection:
        shown = [column for column in versions.c if column is not versions.c.ids]
        query = select(*shown).where(versions.c.source == source).order_by(versions.c.nth)
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [Version(**row | {"status": VersionStatus(row["status"])}) for row in rows]


def move_watermark(
    connection: Connection,
    source: str,
    *,
    seen_at: float | None = None,
    committed_at: float | None = None,
    cursor: str | None = None,
) -> None:
    """Move a source's watermark. Values that are not given stay."""
    given = {"seen_at": seen_at, "committed_at": committed_at, "cursor": cursor}
    values = {name: value for name, value in given.items() if value is not None}
    statement = upsert(connection, sources).values(name=source, **values)
    if values:
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
    else:
        connection.execute(statement.on_conflict_do_nothing())


def list_watermarks(store: Store) -> list[Watermark]:
    """List how far each source was read."""
    with store.reading() as connection:
        rows = connection.execute(select(sources).order_by(sources.c.name)).all()
    return [Watermark(*row) for row in rows]


def _find_fault(items: int, before: int, bound: float) -> str:
    if items == 0:
        return "the sync is empty"
    if before and items < (1.0 - bound) * before:
        return f"the sync has {items} items and the version before it {before}: more than {bound:.0%} would be lost"
    return ""
