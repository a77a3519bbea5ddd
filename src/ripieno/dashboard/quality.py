"""Quality: the proof of the checkpoint in traffic, its calibration there, and its bias."""

from markupsafe import Markup

from ripieno.app import Installation
from ripieno.dashboard.charts import Chart, Series, draw
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.traffic import AUDITED, view_audit, view_traffic
from ripieno.dashboard.views import Views
from ripieno.evaluate.audit import tabulate_audit
from ripieno.learn.checkpoint import Drawn, ModelCard, read_card, tabulate_card

_PERFECT = Series(name="perfect", points=((0.0, 0.0), (1.0, 1.0)))


async def show(app: Installation, views: Views, request: PageRequest) -> Page:
    """Show the proof of the checkpoint, and its quality in the latest traffic."""
    version = app.registry.current()
    card = read_card(app.registry.folder / version) if version is not None else None
    drawn = card.drawn if card is not None else None
    traffic, audit = view_traffic(app, views), view_audit(app, views)
    met = traffic.value
    return Page(
        html=render(
            "quality.html",
            request,
            version=version,
            card=card,
            proof=tabulate_card(card) if card is not None else None,
            gap=_find_gap(card),
            curve=await draw_curve(drawn) if drawn is not None else None,
            calibration=await _draw_calibration("on held-out tasks", drawn.calibration) if drawn is not None else None,
            traffic=traffic,
            audit=audit,
            audited=AUDITED,
            met=await _draw_calibration("in traffic", met.calibration) if met is not None and met.calibration else None,
            course=await _draw_course(met.courses) if met is not None and any(met.courses.values()) else None,
            # last, because the audit may end while the charts are drawn
            findings=tabulate_audit(*audit.value)[1] if audit.value is not None else None,
        )
    )


async def draw_curve(drawn: Drawn) -> Markup | None:
    """Chart cost against quality on held-out tasks: the curves, and each single worker."""
    if not drawn.workers:
        return None
    names = list(drawn.workers)
    singles = Series(
        name="single workers", points=[drawn.workers[name] for name in names], labels=names, is_joined=False
    )
    lines = [Series(name=name, points=points) for name, points in drawn.curves.items()]
    x = "mean cost of a task"
    title = "cost and quality on held-out tasks"
    return await draw(Chart(title=title, lines=[*lines, singles], x=x, y="mean quality", has_log_x=True))


async def _draw_calibration(where: str, points: tuple[tuple[float, float], ...]) -> Markup | None:
    lines = [_PERFECT, Series(name="router", points=points)]
    title = f"expected and met quality {where}"
    return await draw(Chart(title=title, lines=lines, x="expected quality", y="met quality"))


async def _draw_course(courses: dict[str, tuple[tuple[float, float], ...]]) -> Markup | None:
    longest = sorted((item for item in courses.items() if item[1]), key=lambda item: -len(item[1]))
    lines = [Series(name=name, points=points) for name, points in longest[:6]]
    title = "met quality of each worker over the latest decisions"
    return await draw(Chart(title=title, lines=lines, x="oldest to newest", y="quality"))


def _find_gap(card: ModelCard | None) -> float | None:
    rows = card.held_out if card is not None else ()
    return next((row.gap_closed for row in rows if row.name == "router"), None)
