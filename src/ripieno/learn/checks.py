"""Checks: how often answers were accepted after each verdict of a judge, a peer or another verifier.

Source:
    Zadrozny & Elkan (2002), Transforming classifier scores into accurate multiclass probability estimates: isotonic
    regression of outcomes on scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.domain import Executed, Judged
from ripieno.ledger import Ledger
from ripieno.plugins import needs_extra
from ripieno.verify.trust import Trust

LEAST_OUTCOMES = 50
OWN_WEIGHT = 2.0
"""Weight of a verifier's own verdict at each quality level, in outcomes."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Quality that a verifier found during a run, and the quality that others found later."""

    verifier: str
    found: float
    accepted: float


def pair_checks(ledger: Ledger) -> list[Pair]:
    """Pair the findings about returned answers with the mean of the later outcomes by others.

    Answers that a check has blocked have no outcome. The result holds for answers that pass, or that were the best
    available.
    """
    findings: dict[str, dict[str, float]] = {}
    outcomes: dict[str, list[tuple[str, float]]] = {}
    for stored in ledger.read(kinds=("executed", "judged")):
        match stored.entry:
            case Executed(run=run):
                mine = (each.verdict for each in run.findings if each.author == run.worker)
                ours = [verdict for verdict in mine if not verdict.is_void]
                if ours:
                    findings[run.id] = {verdict.verifier: verdict.own for verdict in ours}
            case Judged(run=name, verdict=verdict) if not verdict.is_void:
                outcomes.setdefault(name, []).append((verdict.verifier, verdict.quality))
            case _:
                pass
    pairs = []
    for run_id, given in findings.items():
        for verifier, found in given.items():
            others = [quality for by, quality in outcomes.get(run_id, ()) if by != verifier]
            if others:
                pairs.append(Pair(verifier, found, float(np.mean(others))))
    return pairs


def fit_checks(pairs: Sequence[Pair]) -> dict[str, Trust]:
    """Fit a map for each verifier with at least `LEAST_OUTCOMES` outcomes."""
    with needs_extra("train", "learning what checks are worth"):
        from sklearn.isotonic import IsotonicRegression

    fitted = {}
    for verifier in sorted({pair.verifier for pair in pairs}):
        mine = [pair for pair in pairs if pair.verifier == verifier]
        if len(mine) < LEAST_OUTCOMES:
            continue
        levels = sorted({pair.found for pair in mine})
        found = np.array([*(pair.found for pair in mine), *levels])
        accepted = np.array([*(pair.accepted for pair in mine), *levels])
        weight = np.array([1.0] * len(mine) + [OWN_WEIGHT] * len(levels))
        shares = IsotonicRegression(y_min=0.0, y_max=1.0).fit(found, accepted, weight).predict(levels)
        fitted[verifier] = Trust(
            found=tuple(levels), accepted=tuple(float(share) for share in shares), outcomes=len(mine)
        )
    return fitted
