"""Policies: the checkpoints with their cards and states, and the steps of promotions."""

import asyncio
from dataclasses import dataclass

from ripieno.app import Installation
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.quality import draw_curve
from ripieno.dashboard.views import Views
from ripieno.domain import Promoted, Staged
from ripieno.errors import CheckpointError, NotFound
from ripieno.learn.checkpoint import ModelCard, describe_margin, read_card, tabulate_card

SHOWN = 100
"""Checkpoints, and steps of promotions, on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRow:
    """One checkpoint."""

    version: str
    state: str
    """`in traffic`, `canary`, `quarantined`, `saved` or `unreadable`."""
    card: ModelCard | None
    note: str


async def show(app: Installation, views: Views, request: PageRequest) -> Page:
    """Show the registry, or `policies/VERSION`: one card."""
    if len(request.path) == 2:
        return await _show_card(app, request, request.path[1])
    if len(request.path) > 2:
        raise NotFound("name one checkpoint: /ui/policies/VERSION")
    rows, steps = await asyncio.to_thread(_read, app)
    jobs = [job for job in request.jobs if job.name == "shadow"]
    canary = app.registry.canary()
    return Page(html=render("policies.html", request, rows=rows, steps=steps, jobs=jobs, canary=canary))


def _read(app: Installation) -> tuple[list[CheckpointRow], list[tuple[float, Promoted | Staged]]]:
    latest = reversed(list(app.registry.states().items())[-SHOWN:])
    rows = [_describe(app, version, state) for version, state in latest]
    found = [(stored.at, stored.entry) for stored in app.ledger.decisions.policy_steps(SHOWN)]
    return rows, [(at, entry) for at, entry in found if isinstance(entry, Promoted | Staged)]


def _describe(app: Installation, version: str, state: str) -> CheckpointRow:
    try:
        card = read_card(app.registry.folder / version)
    except CheckpointError as error:
        return CheckpointRow(version=version, state="unreadable", card=None, note=error.message)
    return CheckpointRow(
        version=version, state=state, card=card, note=app.registry.quarantined(version) or card.verdict
    )


def _find_row(app: Installation, version: str) -> CheckpointRow:
    state = app.registry.states().get(version)
    if state is None:
        raise NotFound(f"there is no checkpoint {version[:100]!r}")
    return _describe(app, version, state)


async def _show_card(app: Installation, request: PageRequest, version: str) -> Page:
    row = await asyncio.to_thread(_find_row, app, version)
    drawn = row.card.drawn if row.card is not None else None
    return Page(
        html=render(
            "card.html",
            request,
            row=row,
            card=row.card,
            proof=tabulate_card(row.card) if row.card is not None else None,
            guard=describe_margin(row.card.margin) if row.card is not None else "",
            curve=await draw_curve(drawn) if drawn is not None else None,
        )
    )
