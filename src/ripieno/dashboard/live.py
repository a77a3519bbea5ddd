"""Live: decisions as they happen, with their reasons."""

import asyncio
from dataclasses import dataclass

from ripieno.app import Installation
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.views import Views
from ripieno.domain import Decided
from ripieno.errors import InvalidTask
from ripieno.ledger import Ledger

SHOWN = 50
LONGEST = 160
"""Characters of a task in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """One decision with its result."""

    id: str
    at: float
    kind: str
    text: str
    worker: str
    workflow: str
    why: str
    calls: int
    cost_usd: float | None
    latency_s: float | None
    state: str
    quality: float | None


async def show(app: Installation, views: Views, request: PageRequest) -> Page:
    """Show the latest decisions, or those before a place; `live/rows` is the table alone, for the script."""
    before = request.query.get("before", "")
    if before and not before.isdigit():
        raise InvalidTask(f"before must be a place in the ledger, got {before[:40]!r}")
    rows, earlier = await asyncio.to_thread(read_rows, app.ledger, before=int(before) if before else None)
    if request.path[1:] == ("rows",):
        return Page(html=render("rows.html", request, rows=rows))
    entries = await asyncio.to_thread(app.ledger.head)
    return Page(html=render("live.html", request, rows=rows, earlier=earlier, is_latest=not before, entries=entries))


def read_rows(ledger: Ledger, *, before: int | None = None, most: int = SHOWN) -> tuple[list[DecisionRow], int | None]:
    """Read the latest decisions, newest first, and the place before which earlier ones are."""
    found = ledger.decisions.latest(most, before=before)
    decided = [(stored.at, stored.entry) for stored in found if isinstance(stored.entry, Decided)]
    came = ledger.decisions.results_of([entry.decision.id for _, entry in decided])
    rows = []
    for at, entry in decided:
        decision = entry.decision
        run, judged = came.get(decision.id, (None, []))
        has_answer = run is not None and run.answer is not None
        rows.append(
            DecisionRow(
                id=decision.id,
                at=at,
                kind=decision.kind or "-",
                text=entry.task.text[:LONGEST],
                worker=str(run.worker if run is not None and run.calls else decision.worker),
                workflow=type(decision.workflow).__name__.lower(),
                why=decision.reasons[0] if decision.reasons else "",
                calls=len(run.calls) if run is not None else 0,
                cost_usd=run.cost_usd if run is not None else None,
                latency_s=run.latency_s if run is not None else None,
                state="answered" if has_answer else "failed" if run is not None else "running",
                quality=judged[-1].verdict.quality if judged else None,
            )
        )
    return rows, found[-1].seq if len(found) == most else None
