"""Traffic: the latest decisions with what came of them, read beside the pages, as several of them show it."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.app import App
from ripieno.app.policies import audit_traffic
from ripieno.dashboard.views import Kept, Views
from ripieno.domain import Privacy
from ripieno.errors import NotFound
from ripieno.evaluate.audit import Audit
from ripieno.evaluate.questions import Answers, Observed, answer
from ripieno.evaluate.report import bin_calibration
from ripieno.learn.logs import observe

LAST = 20_000
"""Latest decisions that are read."""
AUDITED = 1_000
"""Latest decisions that are looked at for bias: their features are found anew."""
WINDOWS = 20
"""Stretches of time in which the quality of a worker is averaged."""
LEAST_WINDOW = 5
"""Judged outcomes below which a stretch is not drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the latest decisions show."""

    answers: Answers
    calibration: tuple[tuple[float, float], ...]
    """Expected and met quality of the workers that were chosen, in bins of equal count."""
    courses: dict[str, tuple[tuple[float, float], ...]]
    """By worker: its met quality over the decisions, in their order; from 0, the oldest, to 1."""


def look_at_traffic(app: App, views: Views) -> Kept[Traffic]:
    """The latest decisions, read within the last minute, or being read."""
    return views.look("traffic", lambda: asyncio.to_thread(_read, app))


def look_for_bias(app: App, views: Views) -> Kept[tuple[Audit, list[str]]]:
    """The audit of the latest decisions, made within the last minute, or being made."""
    return views.look("audit", lambda: audit_traffic(app, last=AUDITED))


def _read(app: App) -> Traffic:
    rows = observe(app.ledger, last=LAST)
    if not rows:
        raise NotFound("no task of traffic is recorded yet")
    local = [worker.id for worker in app.pool if worker.privacy is Privacy.LOCAL]
    realised = [row for row in rows if row.quality is not None and row.is_realised and row.worker in row.expected]
    stated = np.array([row.expected[row.worker] for row in realised])
    met = np.array([float(row.quality or 0.0) for row in realised])
    return Traffic(
        answers=answer(rows, local=local),
        calibration=tuple(bin_calibration(stated, met)) if realised else (),
        courses=_follow(rows),
    )


def _follow(rows: Sequence[Observed]) -> dict[str, tuple[tuple[float, float], ...]]:
    """Met quality of each worker in stretches of the decisions."""
    sums: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for place, row in enumerate(rows):
        if row.quality is not None and row.is_realised:
            sums[row.worker][place * WINDOWS // len(rows)].append(row.quality)
    return {
        worker: tuple(
            ((window + 0.5) / WINDOWS, sum(values) / len(values))
            for window, values in sorted(found.items())
            if len(values) >= LEAST_WINDOW
        )
        for worker, found in sums.items()
    }
