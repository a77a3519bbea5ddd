"""Gateway: one chain for every request, from its route to headers, metrics, span and log line."""

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial

from ripieno.app import Installation
from ripieno.domain import JsonValue
from ripieno.errors import Forbidden, RipienoError
from ripieno.gateway.admin import Admin, require_admin
from ripieno.gateway.answering import Answering
from ripieno.gateway.bodies import respond
from ripieno.gateway.compacting import Compacting
from ripieno.gateway.direct import DirectCalls
from ripieno.gateway.embeddings import Embeddings
from ripieno.gateway.errors import LOGGED, Malformed, find_wire, is_hidden, make_error_headers, make_fault
from ripieno.gateway.facts import CLIENT_LEFT, MALFORMED, Facts
from ripieno.gateway.gate import Gate
from ripieno.gateway.http import Request, Response, Stream
from ripieno.gateway.keyring import Keyring
from ripieno.gateway.memories import MemoryRoutes
from ripieno.gateway.metrics import CONTENT_TYPE, Metrics
from ripieno.gateway.models import Models
from ripieno.gateway.passing import PassThrough
from ripieno.gateway.provenance import make_failure_headers
from ripieno.gateway.routes import Access, Route, RouteTable
from ripieno.gateway.runs import RunRoutes
from ripieno.gateway.spans import Spans
from ripieno.gateway.stored import StoredResponses
from ripieno.gateway.ui import ROOT, UiRoutes
from ripieno.gateway.visitors import Visitors
from ripieno.loops import Loop, Loops
from ripieno.wires import ChatDialect

log = logging.getLogger(__name__)

RELOAD_FAULT = "the gateway did not load a changed file; its log names the file and the reason"

DAMAGE = "the ledger is damaged, and no request is answered until it is repaired; the log names the place"


class Gateway:
    """The handler of all requests. It never raises an exception.

    Args:
        app: the opened app.
        gate: checks every request first.
        keyring: checks keys and their limits.
        visitors: knows who may read and change the dashboard.
        spans: sends spans; None sends none.
        loops: the background loops, which health and metrics show.
    """

    def __init__(
        self,
        app: Installation,
        *,
        gate: Gate,
        keyring: Keyring,
        visitors: Visitors,
        spans: Spans | None = None,
        loops: Loops | None = None,
    ) -> None:
        self._app = app
        self.gate = gate
        self.keyring = keyring
        self._loops = loops or Loops(app.ledger.loops)
        self.metrics = Metrics(app, self._loops)
        self.is_draining = False
        self._spans = spans
        self._chat = ChatDialect()
        self._ui = UiRoutes(app, visitors)
        models, stored = Models(app), StoredResponses(app.ledger.documents)
        direct = DirectCalls(app, keyring, models)
        answering = Answering(app, keyring, models, self.metrics, stored)
        self._table = RouteTable(
            [
                Route("GET", "/", self._greet, Access.OPEN),
                Route("GET", "/healthz", self._report_health, Access.OPEN),
                Route("GET", "/readyz", self._report_readiness, Access.OPEN),
                Route("GET", "/metrics", self._show_metrics),
                *answering.routes(),
                *stored.routes(),
                *Compacting(answering, stored).routes(),
                *PassThrough(direct, app).routes(),
                *models.routes(),
                Route("POST", "/v1/embeddings", Embeddings(direct, app, keyring).answer),
                *RunRoutes(app).routes(),
                *MemoryRoutes(app).routes(),
                *Admin(app, keyring).routes(),
                *self._ui.routes(),
            ]
        )

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every route."""
        return self._table.routes

    async def __call__(self, request: Request) -> Response | Stream:
        """Answer one request."""
        facts = Facts(request)
        try:
            answer = await self._route(facts)
        except asyncio.CancelledError:
            facts.status = CLIENT_LEFT
            self._conclude(facts)
            raise
        self._finish(facts, answer)
        return answer

    def refuse_malformed(self, status: int, message: str, headers: Mapping[str, str]) -> Response:
        """Answer bytes that are not an HTTP request."""
        facts = Facts(Request(method="", path="", query="", headers=dict(headers), body=b""), route=MALFORMED)
        facts.error = Malformed(message, status)
        answer = self._refuse(facts, facts.error, None)
        self._finish(facts, answer)
        return answer

    async def close(self) -> None:
        """End the work that the dashboard started."""
        await self._ui.close()

    async def _route(self, facts: Facts) -> Response | Stream:
        """Pass the gate, find the route, check the key, and ask the handler; every failure becomes an answer."""
        route = self._table.find(facts)
        try:
            self.gate.check(facts.request)
            if route is None:
                return self._answer_unrouted(facts)
            if route.access is not Access.OPEN:
                facts.grant = await self.keyring.authorize(facts.request.headers)
                if route.access is Access.ADMIN:
                    require_admin(facts.grant)
            return await route.handler(facts)
        except RipienoError as error:
            facts.error = error
        except Exception as error:  # noqa: BLE001  # plugins are entered here; the log line has the traceback
            facts.fault = error
            facts.error = RipienoError(f"an internal error ({type(error).__name__})", hint=LOGGED)
        return self._refuse(facts, facts.error, route)

    def _answer_unrouted(self, facts: Facts) -> Response:
        """Answer the preflight request of an allowed origin.

        Raises:
            UnknownUrl: no route has this path.
            WrongMethod: its routes take other methods.
        """
        preflight = self.gate.answer_preflight(facts.request)
        if preflight is None:
            raise self._table.refuse(facts)
        return preflight

    def _refuse(self, facts: Facts, error: RipienoError, route: Route | None) -> Response:
        """Write an error in the form of its route."""
        dialect = (route.dialect if route is not None else None) or self._chat
        headers = make_failure_headers(facts.started) if facts.started is not None else {}
        fault = make_fault(error, request=facts.id)
        return Response(dialect.refuse(fault), status=fault.status, headers=headers)

    def _finish(self, facts: Facts, answer: Response | Stream) -> None:
        """Add the headers that every answer has. Count and log the request at its end."""
        headers = {"x-request-id": facts.id, "request-id": facts.id, **answer.headers}
        if facts.error is not None:
            headers |= make_error_headers(facts.error)
        if "origin" in facts.request.headers:
            headers |= self.gate.find_cors(facts.request)
        answer.headers, facts.status = headers, answer.status
        if isinstance(answer, Stream):
            answer.on_end = partial(self._conclude, facts)
        else:
            self._conclude(facts)

    def _conclude(self, facts: Facts) -> None:
        """Count and log a finished request."""
        self.metrics.count(facts)
        if self._spans is not None and facts.started is not None:
            self._spans.send(facts, facts.started)
        log_request(facts)

    async def _greet(self, facts: Facts) -> Response:
        return respond({"name": "ripieno", "openai": "/v1", "anthropic": "/v1/messages", "dashboard": ROOT})

    async def _report_health(self, facts: Facts) -> Response:
        """Report that the process runs, and its faults."""
        fault = None if self._app.reload_fault is None else RELOAD_FAULT
        damage = None if self._app.ledger.damage.found is None else DAMAGE
        is_well = fault is None and damage is None and not any(loop.is_degraded for loop in self._loops)
        body = {
            "status": "ok" if is_well else "degraded",
            "workers": len(self._app.runtime.pool),
            "unhealthy": sorted(self._app.health.unhealthy()),
            "unavailable": sorted(self._app.runtime.availability.conditions().unavailable),
            "reload_fault": fault,
            "ledger_fault": damage,
            "loops": [_describe_loop(loop) for loop in self._loops],
        }
        return respond(body)

    async def _report_readiness(self, facts: Facts) -> Response:
        """Report whether the gateway can take tasks: not draining, the ledger accepts entries, a worker is able."""
        able = len(self._app.runtime.availability.able())
        ledger = self._app.ledger
        is_recording = await ledger.probe()
        is_ready = not self.is_draining and is_recording and able > 0
        body = {
            "ready": is_ready,
            "draining": self.is_draining,
            "ledger": is_recording,
            "outbox": ledger.aside.waiting,
            "workers": able,
        }
        return respond(body, status=200 if is_ready else 503)

    async def _show_metrics(self, facts: Facts) -> Response:
        """Show the counters. They count the requests of all keys, so that no virtual key may see them."""
        if facts.grant.id is not None:
            raise Forbidden("metrics count the requests of all keys", hint="scrape them with the master key")
        return Response(self.metrics.render(), content_type=CONTENT_TYPE)


def _describe_loop(loop: Loop) -> dict[str, JsonValue]:
    """Describe a loop with the class of its error only, because messages may hold secrets and paths."""
    return {
        "name": loop.name,
        "state": loop.state,
        "last_success_age_s": None if loop.success_age_s is None else round(loop.success_age_s, 1),
        "consecutive_failures": loop.failures_in_a_row,
        "last_error": loop.last_error,
    }


def log_request(facts: Facts) -> None:
    """Log one line for a finished request, without any text of task or answer."""
    error = facts.error
    level = logging.INFO
    if error is not None and (facts.fault is not None or is_hidden(error)):
        level = logging.ERROR if facts.fault is not None else logging.WARNING
    if not log.isEnabledFor(level):
        return
    started = facts.started
    extra = {
        "request": facts.id,
        "route": facts.route,
        "status": facts.status,
        "code": find_wire(error).code if error is not None else None,
        "decision": started.decision.id if started is not None else None,
        "key": facts.grant.id,
        "worker": facts.worker,
        "calls": len(started.recorder.calls) if started is not None else 0,
        "cost_usd": started.recorder.price_usd if started is not None else 0.0,
        "seconds": round(time.perf_counter() - facts.began, 4),
    }
    if facts.fault is not None:
        ending = ": unhandled exception in the gateway or a plugin"
    elif error is not None:
        ending = f": {error.message if level == logging.WARNING else type(error).__name__}"
    else:
        ending = f", answered by {facts.worker}" if facts.worker is not None else ""
    line = "request %s: %s %s%s"
    log.log(level, line, facts.id, facts.route, facts.status, ending, extra=extra, exc_info=facts.fault)
