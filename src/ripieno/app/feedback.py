"""Feedback: records late outcomes of decisions."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from ripieno.app.installation import Installation
from ripieno.domain import Judged, Run, Verdict
from ripieno.errors import InvalidTask, NotFound

LONGEST = 2_000
"""Most words of an answer and of its correction that are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """Payer of decisions: a virtual key, or the installation itself."""

    key: str | None
    """Id of the virtual key."""


async def record_feedback(
    app: Installation,
    decision: str,
    verdict: Verdict | None = None,
    *,
    correction: str | None = None,
    payer: Payer | None = None,
) -> Judged:
    """Record a late outcome of a decision.

    Args:
        app: the open app.
        decision: id of the decision, or its beginning.
        verdict: the verdict. Default: the unchanged share of the corrected answer.
        correction: the corrected answer. Only its changed share is recorded.
        payer: required payer of the decision; None accepts any.

    Raises:
        NotFound: the decision is unknown, has another payer, or has no run.
        InvalidTask: there is neither a verdict nor a correction, or no answer to correct.
    """
    runs = await asyncio.to_thread(_find_runs, app, decision, payer)
    judged = await asyncio.to_thread(_make_judged, app, runs, verdict, correction)
    await app.ledger.append(judged)
    await app.learning.run(app.catch_up)  # the outcome is recorded, whether or not it can be learned from now
    return judged


def _find_runs(app: Installation, decision: str, payer: Payer | None) -> list[Run]:
    if payer is None:
        name = app.ledger.decisions.find(decision).decision.id
        runs = app.ledger.runs.of_decision(name)
    else:
        decided, runs, _ = app.runs.look_up_own(decision, key=payer.key)
        name = decided.decision.id
    if not runs:
        raise NotFound(f"decision {name!r} led to no run")
    return runs


def _make_judged(app: Installation, runs: Sequence[Run], verdict: Verdict | None, correction: str | None) -> Judged:
    if correction is not None:
        answer = runs[-1].answer
        if answer is None:
            raise InvalidTask("there is no answer to correct", param="correction")
        edited = measure_edit(answer.text, correction)
        found = verdict or Verdict(verifier="user", quality=1.0 - edited)
        verdict = replace(found, edited=edited)
    if verdict is None:
        raise InvalidTask("say what the answer was worth, or what it should have been", param="quality")
    earlier = [j for j in app.ledger.runs.verdicts_of(runs[-1].id) if j.verdict.verifier == verdict.verifier]
    return Judged(run=runs[-1].id, verdict=verdict, nth=len(earlier))


def measure_edit(answer: str, correction: str) -> float:
    """Measure the changed share of the words, in [0, 1]: 0 for equal words, 1 if no word is left."""
    ours, theirs = answer.split()[:LONGEST], correction.split()[:LONGEST]
    return 1.0 - SequenceMatcher(None, ours, theirs, autojunk=False).ratio()
