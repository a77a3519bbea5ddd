"""Approvals: steps that wait for a human's approval."""

import asyncio

from ripieno.app import Installation
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.views import Views


async def show(app: Installation, views: Views, request: PageRequest) -> Page:
    """Show the steps that wait for approval, and the running runs."""
    found = await asyncio.to_thread(app.runs.unfinished)
    waiting = [each for each in found if each.proposal is not None]
    running = [each for each in found if each.proposal is None]
    return Page(
        html=render("approvals.html", request, waiting=waiting, running=running, is_durable=app.journals is not None)
    )
