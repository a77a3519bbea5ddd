"""Feedback: what an answer turned out to be worth."""

import asyncio
from dataclasses import replace
from difflib import SequenceMatcher

from ripieno.app.app import App
from ripieno.domain import Judged, Verdict
from ripieno.errors import InvalidTask, NotFound

LONGEST = 2_000
"""Words of an answer and of its correction that are compared."""


async def record_feedback(
    app: App, decision: str, verdict: Verdict | None = None, *, correction: str | None = None
) -> Judged:
    """Record a late outcome of a decision.

    Args:
        app: the opened app.
        decision: its id, or the beginning of it.
        verdict: what was found; without one, the answer is worth what the correction left of it.
        correction: what the answer should have been; how much it changes is recorded, and not its text.

    Raises:
        NotFound: the decision is unknown, or led to no run.
        InvalidTask: there is neither a verdict nor a correction, or no answer to correct.
    """
    judged = await asyncio.to_thread(_make_judged, app, decision, verdict, correction)
    await app.ledger.append(judged)
    await app.catch_up()
    return judged


def _make_judged(app: App, decision: str, verdict: Verdict | None, correction: str | None) -> Judged:
    decided = app.ledger.find_decided(decision)
    runs = app.ledger.runs_of(decided.decision.id)
    if not runs:
        raise NotFound(f"decision {decided.decision.id!r} led to no run")
    if correction is not None:
        answer = runs[-1].answer
        if answer is None:
            raise InvalidTask("there is no answer to correct", param="correction")
        edited = measure_edit(answer.text, correction)
        found = verdict or Verdict(verifier="user", quality=1.0 - edited)
        verdict = replace(found, edited=edited)
    if verdict is None:
        raise InvalidTask("say what the answer was worth, or what it should have been", param="quality")
    earlier = [j for j in app.ledger.verdicts_of(runs[-1].id) if j.verdict.verifier == verdict.verifier]
    return Judged(run=runs[-1].id, verdict=verdict, nth=len(earlier))


def measure_edit(answer: str, correction: str) -> float:
    """Share of the words that somebody changed, in [0, 1]: 0 for the same words, 1 where none is left."""
    ours, theirs = answer.split()[:LONGEST], correction.split()[:LONGEST]
    return 1.0 - SequenceMatcher(None, ours, theirs, autojunk=False).ratio()
