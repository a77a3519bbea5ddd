"""Drift: has a worker become another one? Each worker is watched in each group of tasks, and over all of them."""

from collections.abc import Hashable
from typing import Protocol

from ripieno.domain import WorkerId

CONFIDENCE = 0.0005
"""Chance of a false alarm for each pair of windows that is compared."""


class _Detector(Protocol):
    @property
    def drift_detected(self) -> bool: ...

    @property
    def estimation(self) -> float: ...

    def update(self, x: float) -> object: ...


class DriftWatch:
    """Detectors over the residuals outcome minus expectation.

    Source:
        Bifet & Gavalda (2007), Learning from time-changing data with adaptive windowing (ADWIN), as river has it.
    """

    def __init__(self) -> None:
        self._detectors: dict[Hashable, _Detector] = {}

    def see(self, worker: WorkerId, group: int, residual: float) -> str | None:
        """Take one residual, in [-1, 1]; gives what was noticed, in words."""
        noticed = None
        for key in ((worker, None), (worker, group)):
            detector = self._detectors.setdefault(key, _make_detector())
            before = detector.estimation
            detector.update(residual)
            if detector.drift_detected and noticed is None:
                change = detector.estimation - before
                noticed = f"{worker} answers {'better' if change > 0 else 'worse'} than it did"
        if noticed is not None:
            self._detectors = {key: kept for key, kept in self._detectors.items() if key[0] != worker}  # type: ignore[index]
        return noticed


def _make_detector() -> _Detector:
    from river.drift import ADWIN

    detector: _Detector = ADWIN(delta=CONFIDENCE, clock=8, grace_period=20)  # type: ignore[no-untyped-call]
    return detector
