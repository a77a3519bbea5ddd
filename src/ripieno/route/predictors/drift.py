"""Drift: has a worker become another one? Each worker is watched in each group of tasks, and over all of them.

The detector comes from river, of the extra `train`. Without it everything else works, and drift detection is off.
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
"""Chance of a false alarm for each pair of windows that is compared."""


PRIMED = 50


class _Detector(Protocol):
    @property
    def drift_detected(self) -> bool: ...

    @property
    def estimation(self) -> float: ...

    def update(self, x: float) -> object: ...


def find_drift_fault() -> str | None:
    """Say why drift detection is off, and what turns it on; None where it is on."""
    if find_spec("river") is not None:
        return None
    return "drift detection is off: it needs the package 'river': pip install 'ripieno[train]'"


@cache
def is_watching() -> bool:
    """Whether drift can be detected here; where it cannot, the log says so once."""
    fault = find_drift_fault()
    if fault is not None:
        log.warning("%s", fault)
    return fault is None


class DriftWatch:
    """Detectors over outcome minus the checkpoint's expectation, which does not follow the worker.

    A detector begins as if the expectation had been met `PRIMED` times, so that a worker which changed before its first
    outcome is noticed, too; once it is known to have changed, what it does now is what later changes are held against.

    Source:
        Bifet & Gavalda (2007), Learning from time-changing data with adaptive windowing (ADWIN), as river has it.
    """

    def __init__(self, changed: Iterable[WorkerId] = ()) -> None:
        self._detectors: dict[Hashable, _Detector] = {}
        self._shared: frozenset[Hashable] = frozenset()
        """Detectors that a copy has, too: they are copied before they see anything."""
        self.changed = set(changed)
        """Workers that are known not to be what the checkpoint expects."""

    def copy(self) -> "DriftWatch":
        """Return a watch that goes on from here. This one must see no more outcomes."""
        made = DriftWatch(self.changed)
        made._detectors, made._shared = dict(self._detectors), frozenset(self._detectors)
        return made

    def see(self, worker: WorkerId, group: int, *, expected: float, outcome: float) -> str | None:
        """Take one outcome, in [0, 1], and what was expected.

        Returns:
            What was noticed, in words; always None where drift detection is off.
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
        success = int(place * expected) - int((place - 1) * expected)  # as many as expected, evenly spread
        detector.update(success - expected)
    return detector
