"""Key: a virtual key and its limits."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from ripieno.domain.objective import Privacy

DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """Limits of a key; None means no limit."""

    usd_per_day: float | None = None
    usd_per_month: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    workers: tuple[str, ...] = ()
    """If given, only these workers may take the key's tasks."""
    privacy: Privacy = Privacy.PUBLIC
    """How far the key's tasks may travel."""

    def __post_init__(self) -> None:
        for name in ("usd_per_day", "usd_per_month", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A virtual key as it is stored, without its secret."""

    id: str
    name: str
    created_at: float
    limits: KeyLimits = field(default_factory=KeyLimits)
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Spending of a key in one period, a UTC day or month."""

    period: str
    """`2026-11-26` or `2026-11`."""
    cost_usd: float = 0.0
    """Sum of the known costs; a lower bound if `unknown` is not 0."""
    tokens: int = 0
    requests: int = 0
    unknown: int = 0
    """Requests with a call whose price is unknown."""


def find_periods(at: float) -> tuple[str, str]:
    """Return the UTC day and month of a moment, in seconds since 1970. Spending is counted by them."""
    return _name_periods(int(at // DAY_S))


@lru_cache(maxsize=8)
def _name_periods(day: int) -> tuple[str, str]:
    name = datetime.fromtimestamp(day * DAY_S, tz=UTC).date().isoformat()
    return name, name[:7]
