"""Memory: what was seen and learnt, as values; every read says whether it could be made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ripieno.domain.task import Privacy

DAY_S = 86_400.0


class ItemKind(StrEnum):
    """What an item is, which says how long it is kept."""

    EPISODE = "episode"
    """Something that was said or done, as it was."""
    FACT = "fact"
    PREFERENCE = "preference"
    DECISION = "decision"
    TASK = "task"
    """Something that is still to be done."""
    NOISE = "noise"
    """Kept for a while, in case it was none."""


RETENTION_S: Mapping[ItemKind, float] = {ItemKind.NOISE: 7 * DAY_S}
"""How long items of a kind are kept; all others for good."""


class ReadStatus(StrEnum):
    """What a read could do; an outage never looks like an empty memory."""

    OK = "ok"
    EMPTY = "empty"
    """All was looked through, and nothing fits."""
    PARTIAL = "partial"
    """Something fits, and a part of the search could not be made."""
    UNAVAILABLE = "unavailable"
    """Nothing could be looked through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose memory it is; an empty name holds for all."""

    project: str = ""
    user: str = ""
    is_apart: bool = field(default=False, compare=False)
    """Whether a reader of it sees this project alone, without what holds for all projects."""

    def __post_init__(self) -> None:
        for name in ("project", "user"):
            object.__setattr__(self, name, _plain(getattr(self, name)))

    @property
    def projects(self) -> tuple[str, ...]:
        """The projects that a reader of it sees."""
        return (self.project,) if self.is_apart else ("", self.project)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """Something to be remembered."""

    text: str
    kind: ItemKind = ItemKind.EPISODE
    scope: Scope = field(default_factory=Scope)
    author: str = ""
    """Who said it, or whom it is about."""
    thread: str = ""
    """The conversation, file or session that it belongs to: neighbours in a thread lend each other their words."""
    source: str = ""
    """Where it came from, such as `chat` or `git`."""
    ref: str = ""
    """Its name at the source: the same name is remembered once."""
    privacy: Privacy = Privacy.PUBLIC
    """How far it may travel."""
    happened_at: float | None = None
    """When it happened, in seconds since 1970; now if not given."""
    valid_from: float | None = None
    """From when it is true; since it happened if not given."""
    valid_to: float | None = None
    """Until when it is true; None for good."""
    supersedes: str | None = None
    """Id of the item that it takes the place of; both stay readable."""
    derived_from: tuple[str, ...] = ()
    """Ids of the items that it was made from: it is a projection of them, and can be made again."""
    confidence: float = 1.0

    def __post_init__(self) -> None:
        for name in ("text", "author", "thread", "source", "ref"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        if not self.text.strip():
            raise ValueError("there is nothing to remember: the text is empty")
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence must be in [0, 1], got {self.confidence!r}")
        if self.valid_from is not None and self.valid_to is not None and self.valid_to < self.valid_from:
            raise ValueError(f"it ends ({self.valid_to!r}) before it begins ({self.valid_from!r})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that is remembered."""

    id: str
    place: int
    """Where it stands in the order of recording."""
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
    """When it was learnt: the second clock."""
    supersedes: str | None
    derived_from: tuple[str, ...]
    confidence: float
    expires_at: float | None
    erased_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was written is on disk."""

    id: str
    place: int
    is_new: bool
    """Whether it was not there before."""
    removed: int = 0
    """Secrets that were taken out of its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """An item that fits, and how well."""

    item: Item
    score: float
    because: tuple[str, ...] = ()
    """Ids of derived items through which it was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What a read brought."""

    status: ReadStatus
    items: tuple[Recalled, ...] = ()
    """Best first."""
    support: float = 0.0
    """How well the best item answers, in [0, 1]: low where memory holds nothing on the matter."""
    age_s: float | None = None
    """Since the newest item was recorded."""
    synced_at: float | None = None
    """When a source was last read to its end; None where there is none."""
    detail: str = ""
    """Why it is not `ok`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRead:
    """What a task was told of memory, as its decision records it."""

    status: ReadStatus
    items: tuple[str, ...] = ()
    """Ids of what was shown."""
    support: float = 0.0
    age_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """Proof of a deletion: the text is gone, its digest stays."""

    id: str
    digest: str
    """SHA-256 of the text that was erased."""
    erased_at: float
    derived: tuple[str, ...] = ()
    """Items made from it, which went with it."""


def _plain(text: str) -> str:
    """Text without NUL, which is no character of one and which not every database keeps."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text
