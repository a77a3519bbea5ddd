"""Answering: one request of any dialect, from its body to a whole or streamed answer."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

import msgspec

from ripieno.app import App
from ripieno.config import Loaded
from ripieno.domain import Account, Arrival, JsonValue, Objective, Task, WorkerId
from ripieno.errors import (
    InDoubt,
    InvalidTask,
    NoEligibleWorker,
    Overloaded,
    ProviderError,
    ProviderRejected,
    RipienoError,
    WorkerBusy,
)
from ripieno.execute import Execution
from ripieno.gateway.cache import AnswerCache, Kept, name_request
from ripieno.gateway.dialects import Asked, Dialect, Origin, Writing
from ripieno.gateway.errors import find_wire, is_hidden
from ripieno.gateway.http import Request, Response, Stream
from ripieno.gateway.keyring import Grant, Keyring
from ripieno.gateway.memories import own
from ripieno.gateway.metrics import Metrics
from ripieno.gateway.objective import Names, Stated, UnknownModel, read_stated
from ripieno.gateway.sessions import Sessions
from ripieno.gateway.spans import Spans
from ripieno.gateway.told import make_headers, tell_answer, tell_cached, tell_limit, tell_why
from ripieno.orchestrator import make_arrival
from ripieno.providers import Piece

COMMENT_S = 10.0
"""A stream whose first piece takes longer is begun, and kept alive with comments."""

log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class _Turn:
    """One admitted request on its way."""

    dialect: Dialect
    name: str
    asked: Asked
    stated: Stated
    task: Task
    grant: Grant
    began: float
    headers: Mapping[str, str]
    execution: Execution | None = None
    account: Account | None = None
    is_admitted: bool = False
    is_over: bool = False

    def follow(self, execution: Execution) -> None:
        """Know what is done for the request, whatever comes of it."""
        self.execution = execution


class Answering:
    """Carries requests through the orchestrator, and counts them.

    Args:
        app: the opened app.
        keyring: who may ask.
        metrics: what is counted.
        spans: where spans go, if anywhere.
    """

    def __init__(self, app: App, keyring: Keyring, metrics: Metrics, spans: Spans | None = None) -> None:
        self._app = app
        self._keyring = keyring
        self._metrics = metrics
        self._spans = spans
        self._sessions = Sessions(app.clock)
        self._cache = AnswerCache(app.settings.cache.answer_bytes)
        self._in_flight = 0
        self._base = (app.loaded, app.make_objective(), _make_names(app))

    def list_models(self, grant: Grant) -> list[str]:
        """What `model` may name now, without the workers that a key may not use."""
        names, pool = self._read_base()[2], self._app.pool
        hidden = {*pool.ids} - {*self._keyring.list_own(grant, pool)}
        return [name for name in names.all() if names.aliases.get(name, name) not in hidden]

    async def answer(self, dialect: Dialect, name: str, request: Request, grant: Grant) -> Response | Stream:
        """Answer one request.

        Args:
            dialect: the wire format.
            name: of the dialect, as it is counted.
            request: as it came.
            grant: who asks.

        Raises:
            RipienoError: there is no answer; nothing of one was sent.
        """
        began = time.perf_counter()
        body = read_body(request.body)
        asked = dialect.read(body)
        stated, task = self._make_task(asked, request, grant)
        turn = _Turn(dialect, name, asked, stated, task, grant, began, request.headers)
        answer: Response | Stream | None = None
        self._enter()
        try:
            await self._keyring.admit(grant)
            turn.is_admitted = True
            answer = await (self._answer_stream(turn) if asked.is_stream else self._answer_whole(turn))
        except NoEligibleWorker as error:
            self._keyring.check_affordable(grant, error)
            raise self._keyring.narrow(grant, error) from error
        except ProviderError as error:
            if (doubt := self._find_doubt(turn, error)) is not None:
                raise doubt from error
            raise
        finally:
            if not isinstance(answer, Stream):  # a stream ends when it has been sent
                await self._end(turn)
        return answer

    def _find_doubt(self, turn: _Turn, error: ProviderError) -> InDoubt | None:
        """What is told where a call that changes something failed: clients try a failure again, and would do it twice.

        None where it is certain that nothing was done.
        """
        execution, pool = turn.execution, self._app.pool
        if execution is None or error.worker not in pool or not pool[error.worker].has_effects:
            return None
        if isinstance(error, WorkerBusy) or (isinstance(error, ProviderRejected) and not error.blames_worker):
            return None
        step = execution.calls[-1].step if execution.calls else ""
        return InDoubt(execution.decision.id, step=step, worker=error.worker)

    def _make_task(self, asked: Asked, request: Request, grant: Grant) -> tuple[Stated, Task]:
        _, base, names = self._read_base()
        try:
            stated = read_stated(asked.body, asked.model, request.headers, base, names)
        except UnknownModel as error:
            raise UnknownModel(error.model, self._keyring.list_own(grant, self._app.pool)) from error
        objective, budget = self._keyring.restrict(grant, stated.objective, stated.budget)
        task = Task(
            messages=asked.messages,
            tools=asked.tools,
            params=asked.params,
            objective=objective,
            budget=budget,
            kind=stated.kind,
        )
        return stated, task

    async def _answer_whole(self, turn: _Turn) -> Response:
        name = self._name_cached(turn)
        kept = self._cache.find(name) if name is not None else None
        if name is not None:
            self._metrics.note_cache("answers", is_hit=kept is not None)
        if kept is not None:
            return await self._give_kept(turn, kept)
        execution = await self._app.orchestrator.carry(turn.task, arrival=self._arrive(turn), follow=turn.follow)
        assert execution.called is not None
        answer = execution.called.answer
        assert answer is not None
        worker, told = execution.author, tell_answer(execution)
        if name is not None and execution.ended_early is None:
            self._cache.keep(name, Kept(answer, execution.decision.id, worker, told))
        content = turn.dialect.write(turn.asked, answer, _origin(execution.decision.id, worker, told.body))
        await self._end(turn, worker=worker)
        return Response(content, headers=dict(told.headers))

    async def _give_kept(self, turn: _Turn, kept: Kept) -> Response:
        told = tell_cached(kept.told, request=uuid4().hex)
        content = turn.dialect.write(turn.asked, kept.answer, _origin(kept.decision, kept.worker, told.body))
        await self._end(turn, worker=kept.worker)
        return Response(content, headers=dict(told.headers))

    async def _answer_stream(self, turn: _Turn) -> Stream:
        """Wait a while for the first piece, so that a failure before it is a plain error, then pass on the rest."""
        execution, pieces = await self._app.orchestrator.stream(turn.task, arrival=self._arrive(turn))
        turn.execution = execution
        first = asyncio.ensure_future(anext(pieces))
        stream: Stream | None = None
        try:
            done, _ = await asyncio.wait({first}, timeout=COMMENT_S)
            if done:
                first.result()
            worker = execution.serving or execution.decision.worker
            headers = make_headers(execution, worker=worker, why=tell_why(execution, worker))
            headers |= tell_limit(execution) | _NO_CACHE
            stream = Stream(self._emit(turn, first, pieces), headers=headers)
        finally:
            if stream is None:
                await _abandon(first, pieces)
        return stream

    async def _emit(
        self, turn: _Turn, first: "asyncio.Future[Piece]", pieces: AsyncIterator[Piece]
    ) -> AsyncIterator[bytes]:
        execution = turn.execution
        assert execution is not None
        writing: Writing | None = None
        self._metrics.open_streams.inc()
        try:
            while not first.done():
                await asyncio.wait({first}, timeout=COMMENT_S)
                if not first.done():
                    yield turn.dialect.comment
            worker = execution.serving or execution.decision.worker
            writing = turn.dialect.stream(turn.asked, _origin(execution.decision.id, worker))
            yield writing.begin() + writing.add(first.result())
            add = writing.add
            async for piece in pieces:
                data = add(piece)
                if data:
                    yield data
            yield writing.end(tell_answer(execution).body)
        except RipienoError as error:
            writing = writing or turn.dialect.stream(
                turn.asked, _origin(execution.decision.id, execution.decision.worker)
            )
            self._metrics.note_refusal(find_wire(error).code)
            if is_hidden(error):
                log.warning("the stream of %s failed: %s", execution.decision.id, error.message)
            yield writing.fail(error)
        finally:
            self._metrics.open_streams.dec()
            await _abandon(first, pieces)
            await self._end(turn, worker=execution.serving if execution.error is None else None)

    async def _end(self, turn: _Turn, *, worker: str | None = None) -> None:
        """Count a request that is over, once; `worker` is who answered, if anybody did."""
        if turn.is_over:
            return
        turn.is_over = True
        self._leave()
        execution, tokens, cost_usd = turn.execution, 0, 0.0  # nothing was called yet: that costs nothing
        if execution is not None:
            self._metrics.note_execution(execution)
            if self._spans is not None:
                self._spans.send(execution, dialect=turn.name, headers=turn.headers, began=turn.began)
            tokens, cost_usd = execution.tokens, execution.cost_usd
        if log.isEnabledFor(logging.INFO):
            _log(turn, worker)
        if worker is not None:
            self._metrics.note_request(turn.name, began=turn.began)
            if turn.stated.session is not None:
                self._sessions.note(turn.stated.session, turn.grant.id, WorkerId(worker))
        if turn.is_admitted:
            if turn.account is not None:
                _close_account(turn.account, execution)
            await self._keyring.leave(turn.grant, cost_usd=cost_usd, tokens=tokens)

    def _arrive(self, turn: _Turn) -> Arrival:
        session = turn.stated.session
        incumbent = self._sessions.find(session, turn.grant.id) if session is not None else None
        arrival = make_arrival(self._app.clock, incumbent=incumbent, key=turn.grant.id, check=turn.stated.check)
        turn.account = self._keyring.open(turn.grant, arrival.id)
        arrival = replace(arrival, account=turn.account)
        scope = turn.stated.memory
        if scope is None:
            return arrival
        return replace(arrival, memory=own(scope, turn.grant), thread=session or "")

    def _name_cached(self, turn: _Turn) -> bytes | None:
        if turn.stated.memory is not None:
            return None
        may = turn.stated.may_cache
        if not (self._app.settings.cache.answers if may is None else may):
            return None
        return name_request(turn.task, turn.grant, check=turn.stated.check)

    def _enter(self) -> None:
        most = self._app.settings.gateway.max_in_flight
        if self._in_flight >= most:
            raise Overloaded(f"{most} requests are under way, and no more are taken", retry_after_s=1.0)
        self._in_flight += 1
        self._metrics.in_flight.inc()

    def _leave(self) -> None:
        self._in_flight -= 1
        self._metrics.in_flight.dec()

    def _read_base(self) -> tuple[Loaded, Objective, Names]:
        """Objective and names of the settings in force, made anew only when those change."""
        self._app.brain()
        if self._base[0] is not self._app.loaded:
            self._base = (self._app.loaded, self._app.make_objective(), _make_names(self._app))
        return self._base


def _close_account(account: Account, execution: Execution | None) -> None:
    """End what a request holds; where nobody knows what was called for it, it counts as what was held."""
    if execution is not None:
        account.close(cost_usd=execution.cost_usd, is_recorded=bool(execution.calls) or execution.is_claimed)
    else:
        account.close(cost_usd=None, is_recorded=True)


def _log(turn: _Turn, worker: str | None) -> None:
    """One line for a request that is over; nothing of what was asked or answered."""
    execution = turn.execution
    facts = {
        "decision": execution.decision.id if execution is not None else None,
        "dialect": turn.name,
        "key": turn.grant.id,
        "worker": worker,
        "calls": len(execution.calls) if execution is not None else 0,
        "cost_usd": execution.price_usd if execution is not None else 0.0,
        "seconds": round(time.perf_counter() - turn.began, 4),
    }
    log.info("answered by %s" if worker is not None else "not answered%.0s", worker or "", extra=facts)


async def _abandon(first: "asyncio.Future[Piece]", pieces: AsyncIterator[Piece]) -> None:
    """End a stream wherever it is; what its first piece brought was told, or is of no use any more."""
    first.cancel()
    await asyncio.wait({first})
    if not first.cancelled():
        first.exception()
    await pieces.aclose()  # type: ignore[attr-defined]  # an async generator


def read_body(content: bytes) -> dict[str, JsonValue]:
    """The JSON object of a request.

    Raises:
        InvalidTask: it is none.
    """
    try:
        body = _decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTask(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidTask("the body must be a JSON object")
    return body


def _origin(decision: str, worker: str, told: JsonValue = None) -> Origin:
    return Origin(decision=decision, worker=worker, created=int(time.time()), told=told)


def _make_names(app: App) -> Names:
    gateway = app.settings.gateway
    return Names(workers=app.pool.ids, aliases=gateway.aliases, allows_code=gateway.allow_code_checks)


_NO_CACHE = {"cache-control": "no-cache", "x-accel-buffering": "no"}
