"""Dashboard: which page answers which address."""

import asyncio
from collections.abc import Awaitable, Callable

from ripieno.app import Installation
from ripieno.dashboard import approvals, decision, live, memory, playground, policies, pool, quality, reports
from ripieno.dashboard.page import Asked, Page, render
from ripieno.dashboard.traffic import look_at_traffic
from ripieno.dashboard.views import Views
from ripieno.errors import NotFound, RipienoError
from ripieno.evaluate.questions import TrafficReport

Show = Callable[[Installation, Views, Asked], Awaitable[Page]]

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
    """Shows pages of one installation.

    Args:
        app: the opened app.
    """

    def __init__(self, app: Installation) -> None:
        self._app = app
        self.views = Views(app.clock)

    async def show(self, asked: Asked) -> Page:
        """The page of an address.

        Raises:
            NotFound: there is none.
            RipienoError: what it shows could not be read.
        """
        name = asked.path[0] if asked.path else FIRST
        shown = PAGES.get(name)
        if shown is None:
            raise NotFound(f"there is no page {'/'.join(asked.path)[:100]!r}")
        return await shown(self._app, self.views, asked)

    async def report(self, *, last: int) -> TrafficReport:
        """All reports on the latest decisions, read within the last minute.

        Raises:
            LedgerError: they could not be read.
        """
        kept = look_at_traffic(self._app, self.views, last=last)
        if kept.task is not None:
            await asyncio.shield(kept.task)
        if kept.value is None:
            raise NotFound(kept.fault, hint="make some: `ripieno ask TEXT`, or serve traffic")
        return kept.value.report

    def show_error(self, error: RipienoError, asked: Asked, *, status: int) -> Page:
        """The page that tells an error."""
        return Page(html=render("error.html", asked, error=error, status=status), status=status)

    def ask_for_key(self, asked: Asked, *, said: str = "", status: int = 200) -> Page:
        """The page that asks for a key."""
        return Page(html=render("login.html", asked, said=said), status=status)

    async def close(self) -> None:
        """End what is being read for pages."""
        await self.views.close()
