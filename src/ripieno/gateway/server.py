"""HTTP: OpenAI-compatible wire to Task and Run."""

import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ripieno.app import App
from ripieno.domain import Decision, JsonValue, Judged, Usage, Verdict
from ripieno.errors import InvalidTask, NotFound, RipienoError
from ripieno.execute import Execution
from ripieno.gateway.errors import find_wire, make_body, make_error_headers
from ripieno.gateway.wire import (
    AUTO,
    LONGEST_BODY,
    ChatRequest,
    make_chunk,
    make_completion,
    make_headers,
    make_usage_chunk,
    parse_request,
)
from ripieno.providers import Piece
from ripieno.route import PRESETS

log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode

Handler = Callable[[Request], Awaitable[Response]]


class Feedback(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /v1/feedback`."""

    decision: str
    quality: float
    detail: str = ""


class Gateway:
    """The routes over one app."""

    def __init__(self, app: App) -> None:
        self._app = app
        key = app.settings.gateway.api_key
        self._key = key.get_secret_value().encode() if key is not None else None

    def routes(self) -> list[Route]:
        """All routes; each is guarded by the key, where one is set, but for `/healthz`."""
        return [
            Route("/healthz", self.report_health, methods=["GET"]),
            Route("/v1/models", self._guard(self.list_models), methods=["GET"]),
            Route("/v1/models/{model:path}", self._guard(self.show_model), methods=["GET"]),
            Route("/v1/chat/completions", self._guard(self.complete), methods=["POST"]),
            Route("/v1/feedback", self._guard(self.take_feedback), methods=["POST"]),
        ]

    async def report_health(self, request: Request) -> Response:
        """Whether tasks can be taken."""
        pool = self._app.pool
        fault = self._app.reload_fault
        body = {
            "status": "ok" if fault is None else "degraded",
            "workers": len(pool),
            "unhealthy": sorted(self._app.health.unhealthy()),
            "reload_fault": fault,
        }
        return _respond(body)

    async def list_models(self, request: Request) -> Response:
        """`auto` with its presets, and every worker."""
        names = [AUTO, *(f"{AUTO}:{preset}" for preset in PRESETS), *self._app.pool.ids]
        return _respond({"object": "list", "data": [_describe_model(name) for name in names]})

    async def show_model(self, request: Request) -> Response:
        """One model."""
        name = request.path_params["model"]
        known = {AUTO, *(f"{AUTO}:{preset}" for preset in PRESETS), *self._app.pool.ids}
        if name not in known:
            raise NotFound(f"the model {name!r} does not exist")
        return _respond(_describe_model(name))

    async def complete(self, request: Request) -> Response:
        """Route and answer one chat completion."""
        body = await _read_body(request)
        asked, task = parse_request(body, request.headers, self._app.make_objective(), self._app.pool.ids)
        if asked.stream:
            return await self._stream(asked, *(await self._app.orchestrator.stream(task)))
        decision, run = await self._app.orchestrator.handle(task)
        headers = make_headers(decision, worker=run.worker, cost_usd=run.cost_usd)
        return _respond(make_completion(decision, run), headers=headers)

    async def take_feedback(self, request: Request) -> Response:
        """Record what an answer was worth."""
        try:
            given = msgspec.json.decode(await _read_body(request), type=Feedback)
            verdict = Verdict(verifier="user", quality=given.quality, detail=given.detail)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidTask(f"not a feedback: {error}") from error
        judged = await record_feedback(self._app, given.decision, verdict)
        return _respond({"recorded": judged.id})

    async def _stream(
        self, asked: ChatRequest, decision: Decision, execution: Execution, pieces: AsyncIterator[Piece]
    ) -> Response:
        """Wait for the first piece, so that a failure before it is a plain error, then pass on the rest."""
        first = await anext(pieces)
        worker = execution.serving or decision.worker
        stream = _emit(asked, decision, worker, first, pieces)
        return StreamingResponse(
            stream, media_type="text/event-stream", headers=make_headers(decision, worker=worker) | _NO_CACHE
        )

    def _guard(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            try:
                self._check_key(request)
                return await handler(request)
            except _Unauthorized:
                return _respond(_BAD_KEY, status=401, headers={"x-should-retry": "false"})
            except RipienoError as error:
                log.info("request refused: %s", type(error).__name__)
                return _respond(make_body(error), status=find_wire(error).status, headers=make_error_headers(error))
            except ClientDisconnect:
                return Response(status_code=499)

        return guarded

    def _check_key(self, request: Request) -> None:
        if self._key is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode(), self._key):
            raise _Unauthorized


class _Unauthorized(Exception):  # never leaves this module
    pass


_BAD_KEY: dict[str, JsonValue] = {
    "error": {
        "message": "the API key is missing or wrong",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
}
_NO_CACHE = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def make_gateway(app: App) -> Starlette:
    """The ASGI application over an opened app."""
    handlers = {404: _refuse_path, 405: _refuse_path, 500: _tell_fault}
    return Starlette(routes=list(Gateway(app).routes()), exception_handlers=handlers)


async def record_feedback(app: App, decision: str, verdict: Verdict) -> Judged:
    """Record a late outcome of a decision.

    Raises:
        NotFound: the decision is unknown, or led to no run.
    """
    decided = app.ledger.find_decided(decision)
    runs = app.ledger.runs_of(decided.decision.id)
    if not runs:
        raise NotFound(f"decision {decided.decision.id!r} led to no run")
    earlier = [j for j in app.ledger.verdicts_of(runs[-1].id) if j.verdict.verifier == verdict.verifier]
    judged = Judged(run=runs[-1].id, verdict=verdict, nth=len(earlier))
    await app.ledger.append(judged)
    await app.catch_up()
    return judged


async def _emit(
    asked: ChatRequest, decision: Decision, worker: str, first: Piece, rest: AsyncIterator[Piece]
) -> AsyncIterator[bytes]:
    created, usage = int(time.time()), first.usage
    try:
        if "role" not in first.delta:
            yield _event(make_chunk(decision, worker, None, created=created))
        yield _event(make_chunk(decision, worker, first, created=created))
        async for piece in rest:
            usage = piece.usage or usage
            if piece.delta or piece.finish_reason:
                yield _event(make_chunk(decision, worker, piece, created=created))
        if asked.wants_usage:
            yield _event(make_usage_chunk(decision, worker, usage or Usage(), created=created))
        yield b"data: [DONE]\n\n"
    except RipienoError as error:
        yield _event(make_body(error))
    finally:
        await rest.aclose()  # type: ignore[attr-defined]  # an async generator


async def _read_body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LONGEST_BODY:
            raise InvalidTask(f"the request is over {LONGEST_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


async def _refuse_path(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    message = f"{request.method} {request.url.path} is not served here"
    return _respond(
        {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "unknown_url"}},
        status=status,
    )


async def _tell_fault(request: Request, error: Exception) -> Response:
    """A fault of ours or of a plugin: told without its text, which may hold what is not the client's."""
    fault = RipienoError(f"an internal error ({type(error).__name__})", hint="the log of the gateway says more")
    return _respond(make_body(fault), status=500, headers=make_error_headers(fault))


def _describe_model(name: str) -> dict[str, JsonValue]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "ripieno"}


def _event(body: dict[str, JsonValue]) -> bytes:
    return b"data: " + _encode(body) + b"\n\n"


def _respond(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_encode(body), status_code=status, headers=headers, media_type="application/json")
