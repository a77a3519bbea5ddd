"""Health of memory: a canary that is written and read back, and how far each source was read."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import update

from ripieno.domain.memory import Scope
from ripieno.memory.schema import items
from ripieno.memory.store import CANARY_PROJECT, Store
from ripieno.memory.sync import Version, VersionStatus, Watermark, list_versions, list_watermarks, move_watermark

BEAT_S = 60.0
"""Seconds between two writes of the canary."""
CANARY = "canary"
CANARY_SCOPE = Scope(project=CANARY_PROJECT)


class Pulse(StrEnum):
    """State of memory."""

    OK = "ok"
    STALLED = "stalled"
    """It answers, but the canary is two periods late, or a source has seen more than is committed."""
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryHealth:
    """Results of the canary and the watermarks."""

    pulse: Pulse
    items: int = 0
    newest_at: float | None = None
    unembedded: int = 0
    """Items without a vector: the lag of that projection."""
    beat_at: float | None = None
    """Time at which the canary was last written and read back."""
    sources: tuple[Watermark, ...] = ()
    stalled: tuple[str, ...] = ()
    """Sources that have seen more than is committed."""
    quarantined: tuple[Version, ...] = ()
    """Latest sync of each source that is in quarantine."""
    detail: str = ""


def mark_beat(store: Store, at: float) -> None:
    """Record that the canary came back, and let all canaries so far expire."""
    with store.writing() as connection:
        move_watermark(connection, CANARY, seen_at=at, committed_at=at)
        connection.execute(update(items).where(items.c.project == CANARY_PROJECT).values(expires_at=at))


def read_health(store: Store, *, unembedded: int, beat_s: float) -> MemoryHealth:
    """Read the results of the canary and the watermarks.

    Raises:
        MemoryUnavailable: memory cannot be read.
    """
    now = store.clock.now()
    marks = list_watermarks(store)
    beat_at = next((each.committed_at for each in marks if each.source == CANARY), None)
    named = [each for each in marks if each.source != CANARY]
    stalled = [
        each.source
        for each in named
        if each.seen_at is not None
        and each.seen_at > (each.committed_at or 0.0)
        and now - (each.committed_at or 0.0) > 2.0 * beat_s
    ]
    latest = [list_versions(store, each.source)[-1:] for each in named]
    is_late = beat_at is not None and now - beat_at > 2.0 * beat_s
    return MemoryHealth(
        pulse=Pulse.STALLED if stalled or is_late else Pulse.OK,
        items=store.count(),
        newest_at=store.newest(),
        unembedded=unembedded,
        beat_at=beat_at,
        sources=tuple(named),
        stalled=tuple(stalled),
        quarantined=tuple(each for found in latest for each in found if each.status is VersionStatus.QUARANTINED),
        detail="the canary is more than two periods late" if is_late else "",
    )
