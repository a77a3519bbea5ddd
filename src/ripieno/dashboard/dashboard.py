"""Dashboard: the pages by their addresses."""

import asyncio
from collections.abc import Awaitable, Callable

from ripieno.app import Installation
from ripieno.dashboard import approvals, decision, live, memory, playground, policies, pool, quality, reports
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.traffic import view_traffic
from ripieno.dashboard.views import Views
from ripieno.errors import NotFound, RipienoError
from ripieno.evaluate.questions import TrafficReport

Show = Callable[[Installation, Views, PageRequest], Awaitable[Page]]

PAGES: dict[str, Show] = {
    "live": live.show,
    "decision": decision.show,
    "pool": pool.show,
    "quality": quality.show,
    "reports": reports.show,
    "memory": memory.show,
    "policies": policies.show,
    "approvals": approvals.show,
    "playground": playground.show,
}
FIRST = "live"


class Dashboard:
    """Shows the pages of one installation."""

    def __init__(self, app: Installation) -> None:
        self._app = app
        self.views = Views(app.clock)

    async def show(self, request: PageRequest) -> Page:
        """Show the page of an address.

        Raises:
            NotFound: there is no such page.
            RipienoError: the page's data could not be read.
        """
        name = request.path[0] if request.path else FIRST
        shown = PAGES.get(name)
        if shown is None:
            raise NotFound(f"there is no page {'/'.join(request.path)[:100]!r}")
        return await shown(self._app, self.views, request)

    async def report(self, *, last: int) -> TrafficReport:
        """Return all reports on the latest decisions, at most a minute old.

        Raises:
            NotFound: there are no decisions, or the ledger could not be read.
        """
        kept = view_traffic(self._app, self.views, last=last)
        if kept.task is not None:
            await asyncio.shield(kept.task)
        if kept.value is None:
            raise NotFound(kept.fault, hint="make some: `ripieno ask TEXT`, or serve traffic")
        return kept.value.report

    def show_error(self, error: RipienoError, request: PageRequest, *, status: int) -> Page:
        """Make the page of an error."""
        return Page(html=render("error.html", request, error=error, status=status), status=status)

    def ask_for_key(self, request: PageRequest, *, fault: str = "", status: int = 200) -> Page:
        """Make the page that asks for a key."""
        return Page(html=render("login.html", request, fault=fault), status=status)

    async def close(self) -> None:
        """Cancel the views that are being made."""
        await self.views.close()
