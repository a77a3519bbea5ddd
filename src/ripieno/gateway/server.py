"""Gateway: the routes, each guarded by the keys, and every failure in the form of its dialect."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import uuid4

import msgspec

from ripieno.app import App
from ripieno.app.feedback import Payer, record_feedback
from ripieno.domain import JsonValue, Verdict
from ripieno.errors import Forbidden, InvalidTask, RipienoError
from ripieno.gateway.admin import Admin
from ripieno.gateway.answering import Answering, read_body
from ripieno.gateway.bodies import read_form
from ripieno.gateway.dialects import ChatDialect, Dialect, MessagesDialect, ResponsesDialect, count_tokens
from ripieno.gateway.dialects.base import encode
from ripieno.gateway.embeddings import Embeddings
from ripieno.gateway.errors import find_wire, is_hidden, make_error_headers
from ripieno.gateway.gate import Gate
from ripieno.gateway.http import Request, Response, Stream
from ripieno.gateway.keyring import Grant, Keyring
from ripieno.gateway.memories import MEMORY, MemoryRoutes
from ripieno.gateway.metrics import CONTENT_TYPE, Metrics
from ripieno.gateway.objective import UnknownModel
from ripieno.gateway.runs import APPROVALS, RUNS, RunRoutes
from ripieno.gateway.spans import Spans
from ripieno.gateway.ui import ROOT, UiRoutes
from ripieno.gateway.visitors import Visitors

log = logging.getLogger(__name__)

Handler = Callable[[Request, Grant], Awaitable[Response | Stream]]
MODELS = "/v1/models/"
RELOAD_FAULT = "a changed file was not taken; the gateway's log says which one, and why"


class Feedback(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /v1/feedback`."""

    decision: str
    quality: float | None = None
    detail: str = ""
    correction: str | None = None
    """What the answer should have been."""


class Gateway:
    """One handler for all requests; it raises nothing.

    Args:
        app: the opened app.
        gate: what every request must pass first.
        keyring: who may ask.
        visitors: who may look at the dashboard.
        spans: where spans go, if anywhere.
    """

    def __init__(
        self, app: App, *, gate: Gate, keyring: Keyring, visitors: Visitors, spans: Spans | None = None
    ) -> None:
        self._app = app
        self.gate = gate
        self.keyring = keyring
        self.metrics = Metrics(app)
        self.is_draining = False
        self._answering = Answering(app, keyring, self.metrics, spans)
        self._embeddings = Embeddings(app, keyring)
        self._admin = Admin(app, keyring)
        self._runs = RunRoutes(app)
        self._memory = MemoryRoutes(app)
        self._ui = UiRoutes(app, visitors)
        self._chat = ChatDialect()
        self._messages = MessagesDialect()
        responses = ResponsesDialect()
        self._open = {
            ("GET", "/"): self._greet,
            ("GET", "/healthz"): self._report_health,
            ("GET", "/readyz"): self._report_readiness,
        }
        self._routes: dict[tuple[str, str], tuple[Dialect, Handler]] = {
            ("POST", "/v1/chat/completions"): (self._chat, self._answer_with(self._chat, "chat")),
            ("POST", "/v1/messages"): (self._messages, self._answer_with(self._messages, "messages")),
            ("POST", "/v1/responses"): (responses, self._answer_with(responses, "responses")),
            ("POST", "/v1/messages/count_tokens"): (self._messages, self._count_tokens),
            ("POST", "/v1/embeddings"): (self._chat, self._embeddings.answer),
            ("GET", "/v1/models"): (self._chat, self._list_models),
            ("POST", "/v1/feedback"): (self._chat, self._take_feedback),
            ("GET", "/metrics"): (self._chat, self._show_metrics),
            ("GET", APPROVALS): (self._chat, self._runs.list_approvals),
            ("GET", "/admin/report"): (self._chat, self._ui.report),
            ("POST", MEMORY): (self._chat, self._memory.remember),
            ("POST", f"{MEMORY}/recall"): (self._chat, self._memory.recall),
            ("GET", f"{MEMORY}/status"): (self._chat, self._memory.status),
            **{route: (self._chat, handler) for route, handler in self._admin.routes().items()},
        }
        self._named: dict[tuple[str, str], Handler] = {
            ("GET", MODELS): self._show_model,
            ("GET", RUNS): self._runs.show,
            ("DELETE", Admin.KEYS): self._admin.revoke,
            ("DELETE", f"{MEMORY}/"): self._memory.forget,
            ("POST", f"{APPROVALS}/"): self._runs.answer,
        }
        """Routes whose path goes on with a name."""
        self._paths = {path for _, path in (*self._routes, *self._open)}

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Every route but the pages, as its method and path; a path that ends in a slash goes on with a name."""
        return sorted((*self._open, *self._routes, *self._named))

    async def __call__(self, request: Request) -> Response | Stream:
        """Answer one request."""
        answer = await self._answer(request)
        if "origin" in request.headers:
            answer.headers = {**answer.headers, **self.gate.find_cors(request)}
        return answer

    async def _answer(self, request: Request) -> Response | Stream:
        dialect: Dialect = self._chat
        try:
            method = "GET" if request.method == "HEAD" else request.method
            route = self._routes.get((method, request.path))
            if route is not None:
                dialect = route[0]
            self.gate.check(request)
            if route is not None:
                return await route[1](request, await self.keyring.authorize(request.headers))
            return await self._answer_other(request, method)
        except RipienoError as error:
            return self.refuse(error, dialect)
        except Exception as error:
            log.exception("a request failed by a fault of ours, or of a plugin")
            said = f"an internal error ({type(error).__name__})"
            return self.refuse(RipienoError(said, hint="the log of the gateway says more"), dialect)

    async def _answer_other(self, request: Request, method: str) -> Response | Stream:
        """What needs no key, pages, names in paths, and what is not served."""
        public = self._open.get((method, request.path))
        if public is not None:
            return await public()
        if request.path == ROOT or request.path.startswith(f"{ROOT}/"):
            return await self._ui.answer(request)
        preflight = self.gate.answer_preflight(request)
        if preflight is not None:
            return preflight
        found = self._find_route(method, request)
        if found is None:
            return _refuse_path(request, 405 if request.path in self._paths else 404)
        return await found(request, await self.keyring.authorize(request.headers))

    async def close(self) -> None:
        """End what was begun beside requests."""
        await self._ui.close()

    def refuse(self, error: RipienoError, dialect: Dialect | None = None) -> Response:
        """The response that tells an error."""
        wire = find_wire(error)
        self.metrics.note_refusal(wire.code)
        request = uuid4().hex
        if is_hidden(error):
            log.warning("request %s failed: %s", request, error.message)
        else:
            log.info("request %s refused: %s", request, type(error).__name__)
        headers = make_error_headers(error) | {"x-request-id": request, "request-id": request}
        body = (dialect or self._chat).refuse(error, request=request)
        return Response(body, status=wire.status, headers=headers)

    def refuse_malformed(self, status: int, said: str) -> Response:
        """The response to what never was a request."""
        codes = {413: "body_too_large", 408: "request_timeout", 431: "headers_too_large", 503: "overloaded"}
        code = codes.get(status, "bad_request")
        self.metrics.note_refusal(code)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        headers = {"retry-after": "1"} if status == 503 else {}
        return Response(_make_error(said, kind, code), status=status, headers=headers)

    def _find_route(self, method: str, request: Request) -> Handler | None:
        """The route of a path that goes on with a name; its errors have OpenAI's form."""
        for (known, beginning), handler in self._named.items():
            if method == known and request.path.startswith(beginning):
                return handler
        return None

    def _answer_with(self, dialect: Dialect, name: str) -> Handler:
        return partial(self._answering.answer, dialect, name)

    async def _greet(self) -> Response:
        return _respond({"name": "ripieno", "openai": "/v1", "anthropic": "/v1/messages", "dashboard": ROOT})

    async def _report_health(self) -> Response:
        """Whether the process lives, and what ails it."""
        fault = None if self._app.reload_fault is None else RELOAD_FAULT
        body = {
            "status": "ok" if fault is None else "degraded",
            "workers": len(self._app.pool),
            "unhealthy": sorted(self._app.health.unhealthy()),
            "reload_fault": fault,
        }
        return _respond(body)

    async def _report_readiness(self) -> Response:
        """Whether tasks can be taken now: not while draining, while the ledger refuses, or without a worker.

        The ledger is tried.
        """
        able = len(self._app.able())
        ledger = self._app.ledger
        is_recording = await ledger.probe()
        is_ready = not self.is_draining and is_recording and able > 0
        body = {
            "ready": is_ready,
            "draining": self.is_draining,
            "ledger": is_recording,
            "outbox": ledger.waiting,
            "workers": able,
        }
        return _respond(body, status=200 if is_ready else 503)

    async def _list_models(self, request: Request, grant: Grant) -> Response:
        """`auto` with its presets, and the workers and aliases that the key may use."""
        data = [_describe_model(name) for name in self._answering.list_models(grant)]
        return _respond(
            {"object": "list", "data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
        )

    async def _show_model(self, request: Request, grant: Grant) -> Response:
        """One model."""
        name = request.path.removeprefix(MODELS)
        if name not in self._answering.list_models(grant):
            raise UnknownModel(name, self.keyring.list_own(grant, self._app.pool))
        return _respond(_describe_model(name))

    async def _count_tokens(self, request: Request, grant: Grant) -> Response:
        return _respond({"input_tokens": count_tokens(self._messages.read(read_body(request.body)))})

    async def _show_metrics(self, request: Request, grant: Grant) -> Response:
        """The counters of this installation: they count the requests of all keys, and are shown to none."""
        if grant.id is not None:
            raise Forbidden("metrics count the requests of all keys", hint="scrape them with the master key")
        return Response(self.metrics.render(), content_type=CONTENT_TYPE)

    async def _take_feedback(self, request: Request, grant: Grant) -> Response:
        """Record what an answer was worth; a key may say so of its own decisions, and the master key of all."""
        given, verdict = read_form(request, Feedback), None
        if given.quality is not None:
            try:
                verdict = Verdict(verifier="user", quality=given.quality, detail=given.detail)
            except ValueError as error:
                raise InvalidTask(str(error), param="quality") from error
        payer = None if grant.is_admin else Payer(key=grant.id)
        judged = await record_feedback(self._app, given.decision, verdict, correction=given.correction, payer=payer)
        return _respond({"recorded": judged.id})


def _refuse_path(request: Request, status: int) -> Response:
    said = f"{request.method} {request.path[:200]} is not served here"
    return Response(_make_error(said, "invalid_request_error", "unknown_url"), status=status)


def _make_error(said: str, kind: str, code: str) -> bytes:
    return encode({"error": {"message": said, "type": kind, "param": None, "code": code}})


def _describe_model(name: str) -> dict[str, JsonValue]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "ripieno",
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }


def _respond(body: JsonValue, *, status: int = 200) -> Response:
    return Response(encode(body), status=status)
