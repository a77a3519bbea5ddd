"""Memory: search, one item with its history, the state of memory, and the quarantine."""

from ripieno.app import Installation
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.views import Views
from ripieno.domain import Privacy
from ripieno.domain.memory import Scope
from ripieno.errors import NotFound
from ripieno.memory.harness import examine, recall

MOST = 25


async def show(app: Installation, views: Views, request: PageRequest) -> Page:
    """Show the search page, or `memory/ID`: one item."""
    if len(request.path) == 2:
        return await _show_item(app, request, request.path[1])
    if len(request.path) > 2:
        raise NotFound("name one item: /ui/memory/ID")
    question, project = request.query.get("q", "").strip(), request.query.get("project", "").strip()
    scope = Scope(project=project, user=request.query.get("user", "").strip())
    found = None
    if question:
        found = await recall(lambda: app.memory, question[:2000], scope=scope, most=MOST, reach=Privacy.LOCAL)
    return Page(
        html=render(
            "memory.html",
            request,
            found=found,
            question=question,
            scope=scope,
            health=await examine(lambda: app.memory),
            waiting=len(app.runtime.harness.waiting),
        )
    )


async def _show_item(app: Installation, request: PageRequest, name: str) -> Page:
    history = await app.memory.history(name)
    item = next(each for each in history if each.id.startswith(name))
    origins = await app.memory.get(item.derived_from) if item.derived_from else []
    return Page(html=render("item.html", request, item=item, history=history, origins=origins))
