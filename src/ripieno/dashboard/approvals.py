"""Approvals: steps that wait for a human."""

import asyncio

from ripieno.app import Installation
from ripieno.dashboard.page import Asked, Page, render
from ripieno.dashboard.views import Views


async def show(app: Installation, views: Views, asked: Asked) -> Page:
    """What waits, and what is under way."""
    found = await asyncio.to_thread(app.runs.unfinished)
    waiting = [each for each in found if each.proposal is not None]
    under_way = [each for each in found if each.proposal is None]
    return Page(
        html=render("approvals.html", asked, waiting=waiting, under_way=under_way, is_durable=app.journals is not None)
    )
