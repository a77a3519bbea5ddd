"""The dashboard over HTTP: pages to read, and forms that change things for who gave the admin key."""

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from ripieno.app import Installation
from ripieno.errors import InvalidTask, NotFound, RateLimited, RipienoError
from ripieno.gateway.actions import Actions
from ripieno.gateway.errors import find_wire, tell
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Request, Response
from ripieno.gateway.routes import Access, Route
from ripieno.gateway.visitors import (
    COOKIE,
    LASTS_S,
    Visitor,
    Visitors,
    read_cookie,
    require_own_site,
    set_cookie,
)

if TYPE_CHECKING:
    from ripieno.dashboard import Asked, Dashboard, Page

ROOT = "/ui"
SAID, SAID_S = "ripieno_said", 5
"""The cookie in which an action tells the next page what it did, and how long it lasts."""
MOST_FIELDS = 40
LAST, MOST_LAST = 20_000, 200_000
"""Latest decisions that a report over HTTP looks at, and how many it may be told to."""
LONGEST_SAID = 300

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
}
"""Of pages, beside what the gate puts on every response."""
PRIVATE = {"cache-control": "no-store"}


class UiRoutes:
    """The routes under `/ui`.

    Args:
        app: the opened app.
        visitors: who may read and change.
    """

    def __init__(self, app: Installation, visitors: Visitors) -> None:
        self._app = app
        self._visitors = visitors
        self._actions = Actions(app)

    def routes(self) -> list[Route]:
        """List the routes; the dashboard knows its own pages and forms."""
        return [
            Route("GET", ROOT, self.answer, Access.OPEN),
            Route("GET", f"{ROOT}/{{page}}", self.answer, Access.OPEN),
            Route("POST", f"{ROOT}/{{form}}", self.answer, Access.OPEN),
            Route("GET", "/admin/report", self.report, Access.ADMIN),
        ]

    async def answer(self, facts: Facts) -> Response:
        """Answer with a page, of an error too; an exception that is no `RipienoError` passes through."""
        request = facts.request
        asked = _make_asked(request)
        try:
            visitor = self._visitors.recognise(request)
            asked = self._tell_visitor(asked, visitor, request)
            return await self._answer(facts, asked, visitor)
        except RipienoError as error:
            facts.error = error
            shown = error if asked.is_admin else RipienoError(tell(error))
            return _respond(self._dashboard.show_error(shown, asked, status=find_wire(error).status))

    async def report(self, facts: Facts) -> Response:
        """Give all reports on the latest decisions, as JSON; `?last=N` says on how many."""
        last = dict(parse_qsl(facts.request.query)).get("last", str(LAST))
        if not last.isdigit() or not 1 <= int(last) <= MOST_LAST:
            raise InvalidTask(f"last must be 1 to {MOST_LAST}", param="last")
        return Response(msgspec.json.encode(await self._dashboard.report(last=int(last))))

    async def close(self) -> None:
        """End what was begun from pages."""
        await self._actions.close()
        if "_dashboard" in self.__dict__:
            await self._dashboard.close()

    @cached_property
    def _dashboard(self) -> "Dashboard":
        from ripieno.dashboard import Dashboard  # templates and charts are loaded by who looks at them

        return Dashboard(self._app)

    async def _answer(self, facts: Facts, asked: "Asked", visitor: Visitor) -> Response:
        if asked.path[:1] == ("assets",):
            return self._give_asset(asked)
        if facts.request.method == "POST":
            return await self._act(facts, asked, visitor)
        if asked.path == ("enter",) or not visitor.may_read:
            return _respond(self._dashboard.ask_for_key(asked, status=200 if visitor.may_read else 401))
        return _respond(await self._dashboard.show(asked))

    def _tell_visitor(self, asked: "Asked", visitor: Visitor, request: Request) -> "Asked":
        return replace(
            asked,
            is_admin=visitor.is_admin,
            can_leave=bool(visitor.cookie),
            token=self._visitors.make_token(visitor),
            jobs=self._actions.jobs.list(),
            said=unquote(read_cookie(request, SAID))[:LONGEST_SAID],
        )

    def _give_asset(self, asked: "Asked") -> Response:
        from ripieno.dashboard import read_asset

        found = read_asset("/".join(asked.path[1:]))
        if found is None:
            raise NotFound("there is no such file")
        headers = HEADERS | {"cache-control": "no-cache"}
        return Response(found[0], content_type=found[1], headers=headers)

    async def _act(self, facts: Facts, asked: "Asked", visitor: Visitor) -> Response:
        request = facts.request
        fields = _read_form(request)
        if asked.path == ("enter",):
            return self._enter(facts, asked, fields.get("key", ""))
        if asked.path == ("leave",):
            require_own_site(request)
            return _redirect("", cookie=set_cookie(request, COOKIE, "", lasts_s=0))
        self._visitors.require_own_form(request, visitor, fields.pop("token", ""))
        done = await self._actions.do("/".join(asked.path), fields)
        said = quote(done.said[:LONGEST_SAID])
        return _redirect(done.back, cookie=set_cookie(request, SAID, said, lasts_s=SAID_S if said else 0))

    def _enter(self, facts: Facts, asked: "Asked", key: str) -> Response:
        request = facts.request
        require_own_site(request)
        try:
            cookie = self._visitors.enter(key, request.client)
        except RateLimited as error:
            facts.error = error
            return _respond(self._dashboard.ask_for_key(asked, said=f"{tell(error)}.", status=429))
        if cookie is None:
            return _respond(self._dashboard.ask_for_key(asked, said="That is not the key.", status=401))
        return _redirect("", cookie=set_cookie(request, COOKIE, cookie, lasts_s=LASTS_S))


def _make_asked(request: Request) -> "Asked":
    from ripieno.dashboard import Asked

    parts = tuple(part for part in request.path.removeprefix(ROOT).split("/") if part)
    return Asked(path=parts, query=dict(parse_qsl(request.query, max_num_fields=None)[:MOST_FIELDS]))


def _read_form(request: Request) -> dict[str, str]:
    try:
        text = request.body.decode()
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise InvalidTask(f"not a form: {error}") from error


def _respond(page: "Page") -> Response:
    return Response(
        page.html.encode("utf-8", "replace"),
        status=page.status,
        content_type="text/html; charset=utf-8",
        headers=HEADERS | PRIVATE,
    )


def _redirect(back: str, *, cookie: str) -> Response:
    headers = HEADERS | PRIVATE | {"location": f"{ROOT}/{back}".rstrip("/"), "set-cookie": cookie}
    return Response(b"", status=303, headers=headers)
