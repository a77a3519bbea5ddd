"""WorkerHealth: a circuit breaker and a wait time for each worker. The mask reads both."""

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


class WorkerHealth:
    """Counts failures in a row. After three the breaker opens, and each further failure doubles the time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._breakers: dict[WorkerId, _Breaker] = {}

    def unhealthy(self) -> Mapping[WorkerId, str]:
        """Return the workers with an open breaker, with their faults."""
        now = self._clock.monotonic()
        return {
            worker: f"{b.fault}; next try in {b.closed_again_at - now:.0f} s"
            for worker, b in self._breakers.items()
            if b.closed_again_at > now
        }

    def rate_limited(self) -> Mapping[WorkerId, str]:
        """Return the workers that asked for a wait."""
        now = self._clock.monotonic()
        return {
            worker: f"asked to wait {b.waits_until - now:.1f} s more"
            for worker, b in self._breakers.items()
            if b.waits_until > now
        }

    def resting(self) -> Mapping[WorkerId, float]:
        """Return the workers whose own failures opened the breaker here, with the remaining seconds."""
        now = self._clock.monotonic()
        return {w: b.closed_again_at - now for w, b in self._breakers.items() if b.closed_again_at > now and b.failures}

    def unreachable(self) -> list[WorkerId]:
        """Return the workers whose breaker opened because no connection succeeded. A probe can close it."""
        return [worker for worker in self.resting() if self._breakers[worker].fault == UNREACHABLE]

    def note_reachable(self, worker: WorkerId) -> None:
        """Close the breaker after a successful connection. The next failure opens it again."""
        breaker = self._breakers.get(worker)
        if breaker is not None:
            breaker.closed_again_at = 0.0
            breaker.failures = FAILURES_TO_OPEN - 1

    def note_resting(self, worker: WorkerId, left_s: float) -> None:
        """Open the breaker because another replica opened its own."""
        breaker = self._breakers.setdefault(worker, _Breaker())
        if breaker.closed_again_at <= self._clock.monotonic():
            breaker.closed_again_at = self._clock.monotonic() + left_s
            breaker.fault, breaker.failures = "failed at another replica", 0

    def note_success(self, worker: WorkerId) -> None:
        """Reset the count of failures after a successful call."""
        self._breakers.pop(worker, None)

    def note_failure(self, worker: WorkerId, fault: str, *, is_final: bool = False) -> None:
        """Count a failure of the worker. `is_final` opens the breaker at once."""
        breaker = self._breakers.setdefault(worker, _Breaker())
        breaker.failures += 1
        breaker.fault = fault
        if is_final or breaker.failures >= FAILURES_TO_OPEN:
            rest = min(OPEN_S * 2**breaker.opened, LONGEST_OPEN_S)
            breaker.opened += 1
            breaker.closed_again_at = self._clock.monotonic() + rest

    def note_wait(self, worker: WorkerId, seconds: float) -> None:
        """Record that the worker asked for a wait."""
        breaker = self._breakers.setdefault(worker, _Breaker())
        breaker.waits_until = max(breaker.waits_until, self._clock.monotonic() + seconds)
