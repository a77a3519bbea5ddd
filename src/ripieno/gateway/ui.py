"""The dashboard over HTTP: pages to read, and forms that change things for the admin."""

from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from ripieno.app import Installation
from ripieno.errors import InvalidTask, NotFound, RateLimited, RipienoError
from ripieno.gateway.actions import Actions
from ripieno.gateway.errors import find_wire, format_message
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
    from ripieno.dashboard import Dashboard, Page, PageRequest

ROOT = "/ui"
NOTICE, NOTICE_S = "ripieno_said", 5
"""The cookie with an action's result for the next page, and its lifetime in seconds."""
MOST_FIELDS = 40
LAST, MOST_LAST = 20_000, 200_000
"""Latest decisions of a report over HTTP: the default, and the maximum."""
LONGEST_NOTICE = 300

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
}
"""Headers of pages, beside those that the gate puts on every response."""
PRIVATE = {"cache-control": "no-store"}


class UiRoutes:
    """The routes under `/ui`."""

    def __init__(self, app: Installation, visitors: Visitors) -> None:
        self._app = app
        self._visitors = visitors
        self._actions = Actions(app)

    def routes(self) -> list[Route]:
        """List the routes; the dashboard finds its own pages and forms."""
        return [
            Route("GET", ROOT, self.answer, Access.OPEN),
            Route("GET", f"{ROOT}/{{page}}", self.answer, Access.OPEN),
            Route("POST", f"{ROOT}/{{form}}", self.answer, Access.OPEN),
            Route("GET", "/admin/report", self.report, Access.ADMIN),
        ]

    async def answer(self, facts: Facts) -> Response:
        """Answer with a page, also for an error; an exception that is no `RipienoError` passes through."""
        visitor = self._visitors.identify(facts.request)
        page_request = self._make_page_request(facts.request, visitor)
        try:
            return await self._answer(facts, page_request, visitor)
        except RipienoError as error:
            facts.error = error
            shown = error if visitor.is_admin else RipienoError(format_message(error))
            return _respond(self._dashboard.show_error(shown, page_request, status=find_wire(error).status))

    async def report(self, facts: Facts) -> Response:
        """Return all reports on the latest decisions as JSON; `?last=N` sets how many."""
        last = dict(parse_qsl(facts.request.query)).get("last", str(LAST))
        if not last.isdigit() or not 1 <= int(last) <= MOST_LAST:
            raise InvalidTask(f"last must be 1 to {MOST_LAST}", param="last")
        return Response(msgspec.json.encode(await self._dashboard.report(last=int(last))))

    async def close(self) -> None:
        """Cancel the work that pages started."""
        await self._actions.jobs.close()
        if "_dashboard" in self.__dict__:
            await self._dashboard.close()

    @cached_property
    def _dashboard(self) -> "Dashboard":
        from ripieno.dashboard import Dashboard  # loads templates and charts only if a page is read

        return Dashboard(self._app)

    async def _answer(self, facts: Facts, page_request: "PageRequest", visitor: Visitor) -> Response:
        if page_request.path[:1] == ("assets",):
            return self._send_asset(page_request)
        if facts.request.method == "POST":
            return await self._act(facts, page_request, visitor)
        if page_request.path == ("enter",) or not visitor.may_read:
            return _respond(self._dashboard.ask_for_key(page_request, status=200 if visitor.may_read else 401))
        return _respond(await self._dashboard.show(page_request))

    def _make_page_request(self, request: Request, visitor: Visitor) -> "PageRequest":
        from ripieno.dashboard import PageRequest

        return PageRequest(
            path=tuple(part for part in request.path.removeprefix(ROOT).split("/") if part),
            query=dict(parse_qsl(request.query, max_num_fields=None)[:MOST_FIELDS]),
            is_admin=visitor.is_admin,
            can_leave=bool(visitor.cookie),
            token=self._visitors.make_token(visitor),
            jobs=self._actions.jobs.list(),
            notice=unquote(read_cookie(request, NOTICE))[:LONGEST_NOTICE],
        )

    def _send_asset(self, page_request: "PageRequest") -> Response:
        from ripieno.dashboard import read_asset

        found = read_asset("/".join(page_request.path[1:]))
        if found is None:
            raise NotFound("there is no such file")
        headers = HEADERS | {"cache-control": "no-cache"}
        return Response(found[0], content_type=found[1], headers=headers)

    async def _act(self, facts: Facts, page_request: "PageRequest", visitor: Visitor) -> Response:
        request = facts.request
        fields = _read_form(request)
        if page_request.path == ("enter",):
            return self._enter(facts, page_request, fields.get("key", ""))
        if page_request.path == ("leave",):
            require_own_site(request)
            return _redirect("", cookie=set_cookie(request, COOKIE, "", lasts_s=0))
        self._visitors.require_own_form(request, visitor, fields.pop("token", ""))
        done = await self._actions.do("/".join(page_request.path), fields)
        notice = quote(done.notice[:LONGEST_NOTICE])
        cookie = set_cookie(request, NOTICE, notice, lasts_s=NOTICE_S if notice else 0)
        return _redirect(done.next_page, cookie=cookie)

    def _enter(self, facts: Facts, page_request: "PageRequest", key: str) -> Response:
        request = facts.request
        require_own_site(request)
        try:
            cookie = self._visitors.enter(key, request.client)
        except RateLimited as error:
            facts.error = error
            return _respond(self._dashboard.ask_for_key(page_request, fault=f"{format_message(error)}.", status=429))
        if cookie is None:
            return _respond(self._dashboard.ask_for_key(page_request, fault="That is not the key.", status=401))
        return _redirect("", cookie=set_cookie(request, COOKIE, cookie, lasts_s=LASTS_S))


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


def _redirect(page: str, *, cookie: str) -> Response:
    headers = HEADERS | PRIVATE | {"location": f"{ROOT}/{page}".rstrip("/"), "set-cookie": cookie}
    return Response(b"", status=303, headers=headers)
