"""Memory: a search as tasks make it, one item with its history, how memory is, and what is in quarantine."""

from ripieno.app import Installation
from ripieno.dashboard.page import Asked, Page, render
from ripieno.dashboard.views import Views
from ripieno.domain import Privacy
from ripieno.domain.memory import Scope
from ripieno.errors import NotFound
from ripieno.memory.harness import examine, recall

MOST = 25


async def show(app: Installation, views: Views, asked: Asked) -> Page:
    """The search page, or `memory/ID`: one item."""
    if len(asked.path) == 2:
        return await _show_item(app, asked, asked.path[1])
    if len(asked.path) > 2:
        raise NotFound("name one item: /ui/memory/ID")
    question, project = asked.query.get("q", "").strip(), asked.query.get("project", "").strip()
    scope = Scope(project=project, user=asked.query.get("user", "").strip())
    found = None
    if question:
        found = await recall(lambda: app.memory, question[:2000], scope=scope, most=MOST, reach=Privacy.LOCAL)
    return Page(
        html=render(
            "memory.html",
            asked,
            found=found,
            question=question,
            scope=scope,
            health=await examine(lambda: app.memory),
            waiting=len(app.runtime.harness.waiting),
        )
    )


async def _show_item(app: Installation, asked: Asked, name: str) -> Page:
    history = await app.memory.history(name)
    item = next(each for each in history if each.id.startswith(name))
    origins = await app.memory.get(item.derived_from) if item.derived_from else []
    return Page(html=render("item.html", asked, item=item, history=history, origins=origins))
