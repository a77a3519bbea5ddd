"""Playground: ask something with the dial, compare two workers, and say what an answer was worth."""

import asyncio
from dataclasses import dataclass

from ripieno.app import Installation
from ripieno.dashboard.decision import read_dial
from ripieno.dashboard.page import Asked, Page, render
from ripieno.dashboard.views import Views
from ripieno.domain import Decision, Judged, Mode, Run

MOST = 2
"""Answers side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One answer."""

    decision: Decision
    text: str
    run: Run | None
    judged: tuple[Judged, ...]


async def show(app: Installation, views: Views, asked: Asked) -> Page:
    """The form, and below it the answers of the decisions that `of` names."""
    names = [name for name in asked.query.get("of", "").split(",") if name][:MOST]
    shown = await asyncio.to_thread(lambda: [_read(app, name) for name in names])
    return Page(
        html=render(
            "playground.html",
            asked,
            shown=shown,
            text=shown[0].text if shown else "",
            dial=read_dial(asked.query.get("dial"), app.runtime.make_objective().preference),
            workers=[worker.id for worker in app.runtime.pool if not worker.is_muted],
            modes=[mode.value for mode in Mode],
            chosen=(asked.query.get("first", "auto"), asked.query.get("second", "")),
        )
    )


def _read(app: Installation, name: str) -> Shown:
    decided = app.ledger.decisions.find(name)
    runs = app.ledger.runs.of_decision(decided.decision.id)
    run = runs[-1] if runs else None
    judged = tuple(app.ledger.runs.verdicts_of(run.id)) if run is not None else ()
    return Shown(decision=decided.decision, text=decided.task.text, run=run, judged=judged)
