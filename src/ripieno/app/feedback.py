"""Feedback: what an answer turned out to be worth."""

import asyncio

from ripieno.app.app import App
from ripieno.domain import Judged, Verdict
from ripieno.errors import NotFound


async def record_feedback(app: App, decision: str, verdict: Verdict) -> Judged:
    """Record a late outcome of a decision.

    Raises:
        NotFound: the decision is unknown, or led to no run.
    """
    judged = await asyncio.to_thread(_make_judged, app, decision, verdict)
    await app.ledger.append(judged)
    await app.catch_up()
    return judged


def _make_judged(app: App, decision: str, verdict: Verdict) -> Judged:
    decided = app.ledger.find_decided(decision)
    runs = app.ledger.runs_of(decided.decision.id)
    if not runs:
        raise NotFound(f"decision {decided.decision.id!r} led to no run")
    earlier = [j for j in app.ledger.verdicts_of(runs[-1].id) if j.verdict.verifier == verdict.verifier]
    return Judged(run=runs[-1].id, verdict=verdict, nth=len(earlier))
