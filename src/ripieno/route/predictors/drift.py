"""Drift: detection of changed workers, in each group of tasks and over all tasks.

The detector is river's, of the extra `train`. Without it, drift detection is off.
"""

import logging
from collections.abc import Hashable, Iterable
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from typing import Protocol

from ripieno.domain import WorkerId
from ripieno.plugins import needs_extra

log = logging.getLogger(__name__)

CONFIDENCE = 0.0005
"""Probability of a false alarm per compared pair of windows."""
PRIMED = 50
"""Outcomes as expected that a new detector starts with."""


class _Detector(Protocol):
    @property
    def drift_detected(self) -> bool: ...

    @property
    def estimation(self) -> float: ...

    def update(self, x: float) -> object: ...


def find_drift_fault() -> str | None:
    """Explain why drift detection is off, and how to turn it on; None if it is on."""
    if find_spec("river") is not None:
        return None
    return "drift detection is off: it needs the package 'river': pip install 'ripieno[train]'"


@cache
def is_watching() -> bool:
    """Return whether drift detection is on. If it is off, the first call logs a warning."""
    fault = find_drift_fault()
    if fault is not None:
        log.warning("%s", fault)
    return fault is None


class DriftWatch:
    """Detectors of the difference between outcome and the checkpoint's expectation, which does not follow the worker.

    A detector starts as if the expectation had been met `PRIMED` times, so that it also notices a worker that changed
    before its first outcome. After a change, later changes are measured from the new behaviour.

    Source:
        Bifet & Gavalda (2007), Learning from time-changing data with adaptive windowing (ADWIN), as river has it.
    """

    def __init__(self, changed: Iterable[WorkerId] = ()) -> None:
        self._detectors: dict[Hashable, _Detector] = {}
        self._shared: frozenset[Hashable] = frozenset()
        """Detectors shared with the original. They are copied before an update."""
        self.changed = set(changed)
        """Workers that are known to differ from the checkpoint's expectation."""

    def copy(self) -> "DriftWatch":
        """Return a watch that continues from here. This one must see no more outcomes."""
        made = DriftWatch(self.changed)
        made._detectors, made._shared = dict(self._detectors), frozenset(self._detectors)
        return made

    def see(self, worker: WorkerId, group: int, *, expected: float, outcome: float) -> str | None:
        """Record one outcome and its expectation, in [0, 1].

        Returns:
            The detected change in words, if any.
        """
        if not is_watching():
            return None
        noticed = None
        for key in ((worker, None), (worker, group)):
            if key not in self._detectors:
                self._detectors[key] = _make_detector(None if worker in self.changed else expected)
            elif key in self._shared:
                self._detectors[key] = deepcopy(self._detectors[key])
                self._shared -= {key}
            detector = self._detectors[key]
            before = detector.estimation
            detector.update(outcome - expected)
            if detector.drift_detected and noticed is None:
                change = detector.estimation - before
                noticed = f"{worker} answers {'better' if change > 0 else 'worse'} than it did"
        if noticed is not None:
            self.changed.add(worker)
            self._detectors = {key: kept for key, kept in self._detectors.items() if key[0] != worker}  # type: ignore[index]
        return noticed


def _make_detector(expected: float | None) -> _Detector:
    with needs_extra("train", "drift detection"):
        from river.drift import ADWIN

    detector: _Detector = ADWIN(delta=CONFIDENCE, clock=8, grace_period=20)  # type: ignore[no-untyped-call]
    if expected is None:
        return detector
    for place in range(1, PRIMED + 1):
        success = int(place * expected) - int((place - 1) * expected)  # the expected number of successes, evenly spread
        detector.update(success - expected)
    return detector
