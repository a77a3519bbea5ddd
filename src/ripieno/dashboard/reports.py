"""Reports: the questions that change a routing table, answered from the latest decisions."""

from ripieno.app import App
from ripieno.dashboard.charts import Chart, draw
from ripieno.dashboard.page import Asked, Page, render
from ripieno.dashboard.traffic import LAST, look_at_traffic
from ripieno.dashboard.views import Views
from ripieno.evaluate.observed import LEAST_EVIDENCE
from ripieno.evaluate.profiles import LENGTHS, name_range
from ripieno.evaluate.questions import Answers

SHOWN = 12
"""Kinds of the chart."""


async def show(app: App, views: Views, asked: Asked) -> Page:
    """All answers, with the evidence of each."""
    kept = look_at_traffic(app, views)
    found = kept.value.answers if kept.value is not None else None
    tokens = {spend.name: float(spend.tokens) for spend in found.kinds[:SHOWN]} if found is not None else {}
    chart = Chart(title="tokens by kind of task", bars=tokens, x="tokens")
    return Page(
        html=render(
            "reports.html",
            asked,
            kept=kept,
            found=found,
            last=LAST,
            least=LEAST_EVIDENCE,
            lengths=_find_lengths(found) if found is not None else [],
            names=[name_range(place) for place in range(len(LENGTHS))],
            chart=await draw(chart) if len(tokens) > 1 else None,
        )
    )


def _find_lengths(found: Answers) -> list[int]:
    """Ranges of lengths in which any worker has answered."""
    return [place for place in range(len(LENGTHS)) if any(each.accepted[place].count for each in found.profiles)]
