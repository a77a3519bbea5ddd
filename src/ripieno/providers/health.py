"""Health: a circuit breaker for each worker, and its waits. The mask reads it."""

from collections.abc import Mapping
from dataclasses import dataclass

from ripieno.domain import Clock, WorkerId

FAILURES_TO_OPEN = 3
OPEN_S = 15.0
LONGEST_OPEN_S = 300.0
UNREACHABLE = "unreachable"


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    opened: int = 0
    closed_again_at: float = 0.0
    waits_until: float = 0.0
    fault: str = ""


class Health:
    """Counts failures in a row; after three the worker rests, twice as long each time it fails again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._breakers: dict[WorkerId, _Breaker] = {}

    def unhealthy(self) -> Mapping[WorkerId, str]:
        """Workers that rest now, with the fault that made them."""
        now = self._clock.monotonic()
        return {
            worker: f"{b.fault}; tried again in {b.closed_again_at - now:.0f} s"
            for worker, b in self._breakers.items()
            if b.closed_again_at > now
        }

    def rate_limited(self) -> Mapping[WorkerId, str]:
        """Workers that asked to wait."""
        now = self._clock.monotonic()
        return {
            worker: f"asked to wait {b.waits_until - now:.1f} s more"
            for worker, b in self._breakers.items()
            if b.waits_until > now
        }

    def resting(self) -> Mapping[WorkerId, float]:
        """Workers whose own failures make them rest here, and for how many seconds more."""
        now = self._clock.monotonic()
        return {w: b.closed_again_at - now for w, b in self._breakers.items() if b.closed_again_at > now and b.failures}

    def unreachable(self) -> list[WorkerId]:
        """Workers that rest because no connection could be made: those that a short look can clear."""
        return [worker for worker in self.resting() if self._breakers[worker].fault == UNREACHABLE]

    def note_reachable(self, worker: WorkerId) -> None:
        """A connection could be made again: the worker is tried at once, and rests again if that fails."""
        breaker = self._breakers.get(worker)
        if breaker is not None:
            breaker.closed_again_at = 0.0
            breaker.failures = FAILURES_TO_OPEN - 1

    def note_resting(self, worker: WorkerId, left_s: float) -> None:
        """Another replica lets the worker rest."""
        breaker = self._breakers.setdefault(worker, _Breaker())
        if breaker.closed_again_at <= self._clock.monotonic():
            breaker.closed_again_at = self._clock.monotonic() + left_s
            breaker.fault, breaker.failures = "failed at another replica", 0

    def note_success(self, worker: WorkerId) -> None:
        """A call went well: the count of failures starts anew."""
        self._breakers.pop(worker, None)

    def note_failure(self, worker: WorkerId, fault: str, *, is_final: bool = False) -> None:
        """A call failed by the worker's fault; `is_final` opens the breaker at once."""
        breaker = self._breakers.setdefault(worker, _Breaker())
        breaker.failures += 1
        breaker.fault = fault
        if is_final or breaker.failures >= FAILURES_TO_OPEN:
            rest = min(OPEN_S * 2**breaker.opened, LONGEST_OPEN_S)
            breaker.opened += 1
            breaker.closed_again_at = self._clock.monotonic() + rest

    def note_wait(self, worker: WorkerId, seconds: float) -> None:
        """The worker asked to wait."""
        breaker = self._breakers.setdefault(worker, _Breaker())
        breaker.waits_until = max(breaker.waits_until, self._clock.monotonic() + seconds)
