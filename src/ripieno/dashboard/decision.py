"""Decision: one task with its features, workers and steps, and what another dial would change."""

import asyncio

from ripieno.analyze.shape import NAMES
from ripieno.app import Installation
from ripieno.dashboard.charts import Chart, Series, draw
from ripieno.dashboard.graph import lay_out
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.views import Views
from ripieno.domain import Decided, Decision, Features, Judged, Run
from ripieno.errors import InvalidTask, NotFound
from ripieno.route.explain import Explanation, explain, turn_dial

DIALS = 21
"""Settings of the dial in the chart."""
LONGEST = 20_000
"""Characters of a text on the page."""


async def show(app: Installation, views: Views, request: PageRequest) -> Page:
    """Show one decision; `?dial=0.3` turns the dial."""
    if len(request.path) != 2:
        raise NotFound("name a decision: /ui/decision/ID")
    name = request.path[1]
    if name == "last":
        latest = await asyncio.to_thread(app.ledger.decisions.last)
        if latest is None:
            raise NotFound("no decision is recorded yet", hint="ask something: `ripieno ask TEXT`, or the playground")
        name = latest
    decided, runs, judged = await asyncio.to_thread(read_decision, app, name)
    explanation = explain(decided.decision)
    dial = read_dial(request.query.get("dial"), decided.decision.objective.preference)
    features = await app.analyzer.analyze(decided.task)
    chart = _plan_chart(decided.decision, explanation)
    return Page(
        html=render(
            "decision.html",
            request,
            decision=decided.decision,
            text=decided.task.text[:LONGEST],
            runs=runs,
            judged=judged,
            explanation=explanation,
            what_if=turn_dial(decided.decision, dial) if explanation.scored else None,
            chart=await draw(chart) if chart is not None else None,
            features=_list_features(features),
            graphs=[lay_out(decided.decision.workflow, run) for run in runs]
            or [lay_out(decided.decision.workflow, None)],
        )
    )


def read_dial(given: str | None, default: float) -> float:
    """Read a setting of the dial, in [0, 1].

    Raises:
        InvalidTask: it is not a number in [0, 1].
    """
    if given is None:
        return default
    try:
        dial = float(given)
    except ValueError:
        dial = -1.0
    if not 0.0 <= dial <= 1.0:
        raise InvalidTask(f"the dial goes from 0 to 1, got {given[:40]!r}", param="dial")
    return dial


def read_decision(app: Installation, name: str) -> tuple[Decided, list[Run], list[Judged]]:
    """Read a decision with its runs, and their verdicts."""
    decided = app.ledger.decisions.find(name)
    runs = app.ledger.runs.of_decision(decided.decision.id)
    return decided, runs, [judged for run in runs for judged in app.ledger.runs.verdicts_of(run.id)]


def _plan_chart(decision: Decision, explanation: Explanation) -> Chart | None:
    """Chart the utility of the leading workers over the dial."""
    if not explanation.scored:
        return None
    leaders = {span.worker for span in explanation.spans}
    scored = sorted(explanation.scored, key=lambda item: item.estimate.worker not in leaders)
    shown = [item.estimate.worker for item in scored]
    turned = [turn_dial(decision, step / (DIALS - 1)) for step in range(DIALS)]
    lines = [Series(name=str(name), points=[(at.dial, at.utilities[name]) for at in turned]) for name in shown[:6]]
    title = "utility of each worker over the dial"
    return Chart(title=title, lines=lines, x="dial: price (0) to quality (1)", y="utility")


def _list_features(features: Features) -> list[tuple[str, str]]:
    named = [
        ("kind", features.kind or "not stated"),
        ("language", features.language or "unsure"),
        ("tokens", str(features.prompt_tokens)),
        ("turns", str(features.turns)),
        ("code blocks", str(features.code_blocks)),
        ("images", str(features.images)),
        ("tools", str(features.tools)),
        ("needs", ", ".join(sorted(features.needs)) or "nothing"),
        ("sensitive", ", ".join(sorted(features.sensitivity)) or "nothing found"),
        ("mission criticality", f"{features.mission_criticality:.1f} of 10"),
        ("time criticality", f"{features.time_criticality:.1f} of 10"),
        ("words known", str(len(features.terms))),
        ("embedding", f"{len(features.embedding)} numbers"),
    ]
    return named + [(name.replace("_", " "), f"{value:.3g}") for name, value in zip(NAMES, features.shape, strict=True)]
