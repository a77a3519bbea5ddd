"""Reports on the latest decisions."""

from ripieno.app import Installation
from ripieno.dashboard.charts import Chart, draw
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.traffic import LAST, view_traffic
from ripieno.dashboard.views import Views
from ripieno.evaluate.tables import summarise_traffic, tabulate_traffic

SHOWN = 12
"""Kinds of tasks in the chart."""


async def show(app: Installation, views: Views, request: PageRequest) -> Page:
    """Show every report, with the evidence of each."""
    kept = view_traffic(app, views)
    found = kept.value.report if kept.value is not None else None
    tokens = {spend.name: float(spend.tokens) for spend in found.kinds[:SHOWN]} if found is not None else {}
    chart = Chart(title="tokens by kind of task", bars=tokens, x="tokens")
    return Page(
        html=render(
            "reports.html",
            request,
            kept=kept,
            reports=tabulate_traffic(found) if found is not None else (),
            summary=summarise_traffic(found) if found is not None else "",
            last=LAST,
            chart=await draw(chart) if len(tokens) > 1 else None,
        )
    )
