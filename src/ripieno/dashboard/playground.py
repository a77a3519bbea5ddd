"""Playground: send a task with the dial, compare two workers, and give feedback."""

import asyncio

from ripieno.app import Installation
from ripieno.dashboard.decision import read_decision, read_dial
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.views import Views
from ripieno.domain import Mode

MOST = 2
"""Answers side by side."""


async def show(app: Installation, views: Views, request: PageRequest) -> Page:
    """Show the form, and below it the answers of the decisions that `of` names."""
    names = [name for name in request.query.get("of", "").split(",") if name][:MOST]
    shown = await asyncio.to_thread(lambda: [read_decision(app, name) for name in names])
    return Page(
        html=render(
            "playground.html",
            request,
            shown=shown,
            text=shown[0][0].task.text if shown else "",
            dial=read_dial(request.query.get("dial"), app.runtime.make_objective().preference),
            workers=[worker.id for worker in app.runtime.pool if not worker.is_muted],
            modes=[mode.value for mode in Mode],
            chosen=(request.query.get("first", "auto"), request.query.get("second", "")),
        )
    )
