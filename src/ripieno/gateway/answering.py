"""Answering: one request of any dialect, from its body to a whole or streamed answer."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial

from ripieno.app import Installation
from ripieno.app.runtime import Runtime
from ripieno.domain import Account, Arrival, JsonValue, Pool, Task, WorkerId
from ripieno.errors import (
    InDoubt,
    NoEligibleWorker,
    Overloaded,
    ProviderError,
    ProviderRejected,
    RipienoError,
)
from ripieno.execute import Answered, Started
from ripieno.gateway.bodies import read_body, respond
from ripieno.gateway.cache import AnswerCache, Kept, name_request
from ripieno.gateway.dialects import (
    Asked,
    ChatDialect,
    Dialect,
    MessagesDialect,
    Origin,
    ResponsesDialect,
    Writing,
    count_tokens,
)
from ripieno.gateway.facts import CLIENT_LEFT, Facts
from ripieno.gateway.http import Response, Stream
from ripieno.gateway.keyring import Keyring, list_own, narrow
from ripieno.gateway.memories import own
from ripieno.gateway.metrics import Metrics
from ripieno.gateway.models import Models
from ripieno.gateway.objective import Stated, UnknownModel, read_stated
from ripieno.gateway.routes import Route
from ripieno.gateway.sessions import Sessions
from ripieno.gateway.told import tell_answer, tell_cached, tell_started
from ripieno.orchestrator import make_arrival
from ripieno.providers import Piece

COMMENT_S = 10.0
"""After this many seconds without a token, the gateway sends keep-alive comments."""


@dataclass(slots=True)
class _RequestState:
    """One request to a model on its way."""

    facts: Facts
    runtime: Runtime
    """The runtime of the request's start. A reload does not change it."""
    dialect: Dialect
    asked: Asked
    stated: Stated
    task: Task
    account: Account | None = None
    is_admitted: bool = False


class Answering:
    """Carries requests through the orchestrator.

    Args:
        app: the opened app.
        keyring: who may ask.
        models: what a request may name.
        metrics: shows what is under way.
    """

    def __init__(self, app: Installation, keyring: Keyring, models: Models, metrics: Metrics) -> None:
        self._app = app
        self._models = models
        self._keyring = keyring
        self._metrics = metrics
        self._sessions = Sessions(app.clock)
        self._cache = AnswerCache(app.runtime.settings.cache.answer_bytes)
        self._in_flight = 0

    def routes(self) -> list[Route]:
        """List the routes."""
        chat, messages, responses = ChatDialect(), MessagesDialect(), ResponsesDialect()
        wires = (
            ("/v1/chat/completions", chat),
            ("/v1/messages", messages),
            ("/v1/responses", responses),
        )
        return [
            *(Route("POST", path, partial(self.answer, dialect), dialect=dialect) for path, dialect in wires),
            Route("POST", "/v1/messages/count_tokens", partial(self.count, messages), dialect=messages),
        ]

    async def count(self, dialect: Dialect, facts: Facts) -> Response:
        """Count the tokens of a request."""
        return respond({"input_tokens": count_tokens(dialect.read(read_body(facts.request.body)))})

    async def answer(self, dialect: Dialect, facts: Facts) -> Response | Stream:
        """Answer one request.

        Args:
            dialect: the wire format.
            facts: of the request.

        Raises:
            RipienoError: there is no answer; nothing of one was sent.
        """
        facts.dialect = dialect.name
        asked = dialect.read(read_body(facts.request.body))
        runtime = self._app.runtime
        stated, task = self._make_task(asked, facts, runtime)
        state = _RequestState(facts, runtime, dialect, asked, stated, task)
        answer: Response | Stream | None = None
        self._enter(runtime.settings.gateway.max_in_flight)
        try:
            await self._keyring.admit(facts.grant)
            state.is_admitted = True
            answer = await (self._answer_stream(state) if asked.is_stream else self._answer_whole(state))
        except NoEligibleWorker as error:
            self._keyring.check_affordable(facts.grant, error)
            raise narrow(facts.grant, error) from error
        except ProviderError as error:
            if (doubt := _find_doubt(runtime.pool, facts.started, error)) is not None:
                raise doubt from error
            raise
        finally:
            if not isinstance(answer, Stream):  # a stream ends when it has been sent
                await self._end(state)
        return answer

    def _make_task(self, asked: Asked, facts: Facts, runtime: Runtime) -> tuple[Stated, Task]:
        grant = facts.grant
        base, names = self._models.read(runtime)
        try:
            stated = read_stated(asked.body, asked.model, facts.request.headers, base, names)
        except UnknownModel as error:
            raise UnknownModel(error.model, list_own(grant, runtime.pool)) from error
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

    async def _answer_whole(self, state: _RequestState) -> Response:
        facts, name = state.facts, self._name_cached(state)
        kept = self._cache.find(name) if name is not None else None
        if name is not None:
            facts.is_hit = kept is not None
        if kept is not None:
            return _write_whole(state, replace(kept, told=tell_cached(kept.told)))
        orchestrator = state.runtime.orchestrator
        facts.started = await orchestrator.start(state.task, arrival=self._arrive(state))
        answered = await orchestrator.finish(facts.started)
        run = answered.run
        fresh = Kept(answered.answer, run.id, run.worker, tell_answer(answered))
        if name is not None and run.ended_early is None:
            self._cache.keep(name, fresh)
        return _write_whole(state, fresh)

    async def _answer_stream(self, state: _RequestState) -> Stream:
        """Wait a while for the first piece, so that a failure before it is a plain error, then pass on the rest."""
        orchestrator = state.runtime.orchestrator
        state.facts.started = started = await orchestrator.start(state.task, arrival=self._arrive(state))
        pieces = await orchestrator.stream(started)
        first = asyncio.ensure_future(anext(pieces))
        stream: Stream | None = None
        try:
            done, _ = await asyncio.wait({first}, timeout=COMMENT_S)
            if done:
                first.result()
            stream = Stream(self._emit(state, started, first, pieces), headers=tell_started(started) | _NO_CACHE)
        finally:
            if stream is None:
                await _abandon(first, pieces)
        return stream

    async def _emit(
        self, state: _RequestState, started: Started, first: "asyncio.Future[Piece]", pieces: AsyncIterator[Piece]
    ) -> AsyncIterator[bytes]:
        facts, decision, recorder = state.facts, started.decision, started.recorder
        writing: Writing | None = None
        self._metrics.open_streams.inc()
        try:
            while not first.done():
                await asyncio.wait({first}, timeout=COMMENT_S)
                if not first.done():
                    yield state.dialect.comment
            writing = _begin_writing(state, decision.id, recorder.serving or decision.worker)
            yield writing.begin() + writing.add(first.result())
            add = writing.add
            async for piece in pieces:
                data = add(piece)
                if data:
                    yield data
            yield writing.end(tell_answer(started.result()).body)
        except RipienoError as error:
            facts.error = error
            writing = writing or _begin_writing(state, decision.id, decision.worker)
            yield writing.fail(error)
        except (asyncio.CancelledError, GeneratorExit):
            facts.status = CLIENT_LEFT
            raise
        finally:
            self._metrics.open_streams.dec()
            await _abandon(first, pieces)
            facts.worker = recorder.ended.run.worker if isinstance(recorder.ended, Answered) else None
            await self._end(state)

    async def _end(self, state: _RequestState) -> None:
        """Give back what a request holds, and count what it has used."""
        self._in_flight -= 1
        self._metrics.in_flight.dec()
        facts, session = state.facts, state.stated.session
        started = facts.started
        if facts.worker is not None and session is not None:
            self._sessions.note(session, facts.grant.id, WorkerId(facts.worker))
        if not state.is_admitted:
            return
        if state.account is not None:
            _close_account(state.account, started)
        tokens, cost_usd = 0, 0.0  # nothing was called yet: that costs nothing
        if started is not None:
            tokens = sum(call.tokens for call in started.recorder.calls)
            cost_usd = started.recorder.cost_usd
        await self._keyring.leave(facts.grant, cost_usd=cost_usd, tokens=tokens)

    def _arrive(self, state: _RequestState) -> Arrival:
        session, grant = state.stated.session, state.facts.grant
        incumbent = self._sessions.find(session, grant.id) if session is not None else None
        arrival = make_arrival(
            self._app.clock, name=state.facts.name, incumbent=incumbent, key=grant.id, check=state.stated.check
        )
        state.account = self._keyring.open(grant, arrival.id)
        arrival = replace(arrival, account=state.account)
        scope = state.stated.memory
        if scope is None:
            return arrival
        return replace(arrival, memory=own(scope, grant), thread=session or "")

    def _name_cached(self, state: _RequestState) -> bytes | None:
        stated = state.stated
        if stated.memory is not None:
            return None
        if not (state.runtime.settings.cache.answers if stated.may_cache is None else stated.may_cache):
            return None
        return name_request(state.task, state.facts.grant, check=stated.check)

    def _enter(self, most: int) -> None:
        if self._in_flight >= most:
            raise Overloaded(f"{most} requests are under way, and no more are taken", retry_after_s=1.0)
        self._in_flight += 1
        self._metrics.in_flight.inc()


def _find_doubt(pool: Pool, started: Started | None, error: ProviderError) -> InDoubt | None:
    """Find what to tell a client whose call with effects failed, so that it does not send the call again by itself.

    None where it is certain that nothing was done: the call never left, or the provider refused it.
    """
    if started is None or error.worker not in pool or not pool[error.worker].has_effects:
        return None
    if error.is_unsent or (isinstance(error, ProviderRejected) and not error.blames_worker):
        return None
    calls = started.recorder.calls
    step = calls[-1].step if calls else ""
    return InDoubt(started.decision.id, step=step, worker=error.worker)


def _close_account(account: Account, started: Started | None) -> None:
    """End what a request holds; where nobody knows what was called for it, it counts as what was held."""
    if started is not None:
        recorder, is_claimed = started.recorder, started.journal is not None
        account.close(cost_usd=recorder.cost_usd, is_recorded=bool(recorder.calls) or is_claimed)
    else:
        account.close(cost_usd=None, is_recorded=True)


async def _abandon(first: "asyncio.Future[Piece]", pieces: AsyncIterator[Piece]) -> None:
    """Cancel the first read and close the stream. Discard the first piece's result."""
    first.cancel()
    await asyncio.wait({first})
    if not first.cancelled():
        first.exception()
    await pieces.aclose()  # type: ignore[attr-defined]  # an async generator


def _write_whole(state: _RequestState, made: Kept) -> Response:
    """Write an answer that is there, and note who gave it."""
    state.facts.worker = made.worker
    source = _make_origin(state, made.decision, made.worker, made.told.body)
    return Response(state.dialect.write(state.asked, made.answer, source), headers=made.told.headers)


def _begin_writing(state: _RequestState, decision: str, worker: str) -> Writing:
    return state.dialect.stream(state.asked, _make_origin(state, decision, worker))


def _make_origin(state: _RequestState, decision: str, worker: str, told: JsonValue = None) -> Origin:
    return Origin(request=state.facts.id, decision=decision, worker=worker, created=int(time.time()), told=told)


_NO_CACHE = {"cache-control": "no-cache", "x-accel-buffering": "no"}
