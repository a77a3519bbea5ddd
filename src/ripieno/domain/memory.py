"""Memory: items, and reads that state their own status."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ripieno.domain.objective import Privacy

DAY_S = 86_400.0


class ItemKind(StrEnum):
    """Kind of an item. It determines the retention."""

    EPISODE = "episode"
    """Words or actions, verbatim."""
    FACT = "fact"
    PREFERENCE = "preference"
    DECISION = "decision"
    TASK = "task"
    """An open task."""
    NOISE = "noise"
    """Probably of no use. Kept for some days, in case it is."""


RETENTION_S: Mapping[ItemKind, float] = {ItemKind.NOISE: 7 * DAY_S}
"""Retention by kind, in seconds; items of all other kinds never expire."""


class ReadStatus(StrEnum):
    """Status of a read. An outage never looks like an empty memory."""

    OK = "ok"
    EMPTY = "empty"
    """The whole search ran and found nothing."""
    PARTIAL = "partial"
    """A part of the search failed, and the rest found something."""
    UNAVAILABLE = "unavailable"
    """The search failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Project and user of a memory; an empty name means all."""

    project: str = ""
    user: str = ""
    is_apart: bool = field(default=False, compare=False)
    """True if a reader sees this project only, without the items of all projects."""

    def __post_init__(self) -> None:
        _remove_nul(self, "project", "user")

    @property
    def projects(self) -> tuple[str, ...]:
        """Return the projects that a reader sees."""
        return (self.project,) if self.is_apart else ("", self.project)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """An item to store."""

    text: str
    kind: ItemKind = ItemKind.EPISODE
    scope: Scope = field(default_factory=Scope)
    author: str = ""
    """The person who said it, or the person it is about."""
    thread: str = ""
    """Its conversation, file or session. The search also matches the words of neighbours in a thread."""
    source: str = ""
    """Kind of source, such as `chat` or `git`."""
    ref: str = ""
    """Unique name at the source. A second item of the same name is not stored twice."""
    privacy: Privacy = Privacy.PUBLIC
    """How far it may travel."""
    happened_at: float | None = None
    """Time of the event, in seconds since 1970. Default: now."""
    valid_from: float | None = None
    """Start of validity. Default: the time of the event."""
    valid_to: float | None = None
    """End of validity; None means no end."""
    supersedes: str | None = None
    """Id of the item that this one replaces; both stay readable."""
    derived_from: tuple[str, ...] = ()
    """Ids of the items that this one was derived from. It can be derived again."""
    confidence: float = 1.0

    def __post_init__(self) -> None:
        _remove_nul(self, "text", "author", "thread", "source", "ref")
        if not self.text.strip():
            raise ValueError("there is nothing to remember: the text is empty")
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence must be in [0, 1], got {self.confidence!r}")
        if self.valid_from is not None and self.valid_to is not None and self.valid_to < self.valid_from:
            raise ValueError(f"it ends ({self.valid_to!r}) before it begins ({self.valid_from!r})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A stored item."""

    id: str
    place: int
    """Position in the order of recording."""
    text: str
    kind: ItemKind
    scope: Scope
    author: str
    thread: str
    source: str
    ref: str
    privacy: Privacy
    happened_at: float
    valid_from: float
    valid_to: float | None
    recorded_at: float
    """Time of recording, the second of the two clocks."""
    supersedes: str | None
    derived_from: tuple[str, ...]
    confidence: float
    expires_at: float | None
    erased_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Proof that an item is on disk."""

    id: str
    place: int
    is_new: bool
    """False if the item was stored before."""
    removed: int = 0
    """Number of secrets that were removed from the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A found item with its score."""

    item: Item
    score: float
    because: tuple[str, ...] = ()
    """Ids of the derived items that led to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Result of a read."""

    status: ReadStatus
    items: tuple[Recalled, ...] = ()
    """Best first."""
    support: float = 0.0
    """How well the best item matches the question, in [0, 1]."""
    age_s: float | None = None
    """Seconds since the newest item was recorded."""
    synced_at: float | None = None
    """Time at which a source was last read to its end; None without sources."""
    detail: str = ""
    """Reason of a status other than `ok`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRead:
    """The memory that a task was given, as its decision records it."""

    status: ReadStatus
    items: tuple[str, ...] = ()
    support: float = 0.0
    age_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """Proof of a deletion: the text is gone, its digest stays."""

    id: str
    digest: str
    """SHA-256 of the erased text."""
    erased_at: float
    derived: tuple[str, ...] = ()
    """Ids of the derived items, which were erased too."""


def _remove_nul(value: object, *names: str) -> None:
    """Replace NUL in texts of a new value, because some databases cannot store it."""
    for name in names:
        text: str = getattr(value, name)
        if "\x00" in text:
            object.__setattr__(value, name, text.replace("\x00", "\ufffd"))
