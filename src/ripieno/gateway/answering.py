"""Answering: a request of any dialect, from its body to a whole or streamed answer."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial

from ripieno.app import Installation
from ripieno.app.runtime import Runtime
from ripieno.domain import Account, Answer, Arrival, Budget, JsonValue, Objective, Pool, Task, WorkerId
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
from ripieno.gateway.cache import AnswerCache, CachedAnswer, name_request
from ripieno.gateway.errors import make_fault
from ripieno.gateway.facts import CLIENT_LEFT, Facts
from ripieno.gateway.http import Response, Stream
from ripieno.gateway.keyring import Keyring, hide_other_workers, list_allowed_workers
from ripieno.gateway.memories import restrict_scope
from ripieno.gateway.metrics import Metrics
from ripieno.gateway.models import Models
from ripieno.gateway.objective import RequestOptions, UnknownModel, parse_request_options
from ripieno.gateway.provenance import describe_answer, describe_cached, make_stream_headers
from ripieno.gateway.reasoning import Reasonings
from ripieno.gateway.routes import Route
from ripieno.gateway.sessions import Sessions
from ripieno.gateway.stored import StoredResponses, Thread, describe_thread
from ripieno.orchestrator import make_arrival
from ripieno.providers import Piece
from ripieno.wires import (
    ChatDialect,
    CompletionsDialect,
    Dialect,
    MessagesDialect,
    ParsedRequest,
    ResponsesDialect,
    ResponseSource,
    StreamWriter,
    count_tokens,
)

COMMENT_S = 10.0
"""After this many seconds without a token, the gateway sends keep-alive comments."""


@dataclass(slots=True)
class _RequestState:
    """A request that is being answered."""

    facts: Facts
    runtime: Runtime
    """The runtime of the request's start. A reload does not change it."""
    dialect: Dialect
    parsed: ParsedRequest
    options: RequestOptions
    task: Task
    thread: Thread | None = None
    """What a request of responses continues, and where its response is kept."""
    account: Account | None = None
    is_admitted: bool = False


class Answering:
    """Answers requests through the orchestrator."""

    def __init__(
        self, app: Installation, keyring: Keyring, models: Models, metrics: Metrics, stored: StoredResponses
    ) -> None:
        self._app = app
        self._models = models
        self._keyring = keyring
        self._metrics = metrics
        self._sessions = Sessions(app.clock)
        self._reasonings = Reasonings()
        self._stored = stored
        self._cache = AnswerCache(app.runtime.settings.cache.answer_bytes)
        self._in_flight = 0

    def routes(self) -> list[Route]:
        """List the routes."""
        chat, messages, responses = ChatDialect(), MessagesDialect(), ResponsesDialect()
        wires = (
            ("/v1/chat/completions", chat),
            ("/v1/completions", CompletionsDialect()),
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

        Raises:
            RipienoError: there is no answer, and no part of one was sent.
        """
        facts.dialect = dialect.name
        body, thread = read_body(facts.request.body), None
        if isinstance(dialect, ResponsesDialect):
            body, thread = await self._stored.open(body, facts.grant)
        parsed = dialect.read(body)
        if thread is not None:
            parsed = replace(parsed, echo=describe_thread(thread))
        runtime = self._app.runtime
        base, names = self._models.read(runtime)
        try:
            options = parse_request_options(parsed.body, parsed.model, facts.request.headers, base, names)
        except UnknownModel as error:
            raise UnknownModel(error.model, list_allowed_workers(facts.grant, runtime.pool)) from error
        objective, budget = self._keyring.restrict(facts.grant, options.objective, options.budget)
        messages = self._reasonings.assign(parsed.messages)
        task = _make_task(replace(parsed, messages=messages), objective, budget, options.kind)
        state = _RequestState(facts, runtime, dialect, parsed, options, task, thread)
        answer: Response | Stream | None = None
        self._enter(runtime.settings.gateway.max_in_flight)
        try:
            await self._keyring.admit(facts.grant)
            state.is_admitted = True
            answer = await (self._answer_stream(state) if parsed.is_stream else self._answer_whole(state))
        except NoEligibleWorker as error:
            self._keyring.check_affordable(facts.grant, error)
            raise hide_other_workers(facts.grant, error) from error
        except ProviderError as error:
            if (doubt := _find_doubt(runtime.pool, facts.started, error)) is not None:
                raise doubt from error
            raise
        finally:
            if not isinstance(answer, Stream):  # a stream calls it at its own end
                await self._end(state)
        return answer

    async def _answer_whole(self, state: _RequestState) -> Response:
        facts, name = state.facts, self._name_cached(state)
        if name is not None:
            cached = self._cache.find(name)
            facts.is_cached = cached is not None
            if cached is not None:
                return await self._write_whole(state, replace(cached, provenance=describe_cached(cached.provenance)))
        orchestrator = state.runtime.orchestrator
        facts.started = await orchestrator.start(state.task, arrival=self._arrive(state))
        answered = await orchestrator.finish(facts.started)
        run = answered.run
        self._reasonings.remember(answered.answer, run.worker)
        fresh = CachedAnswer(answered.answer, run.id, run.worker, describe_answer(answered))
        if name is not None and run.ended_early is None:
            self._cache.keep(name, fresh)
        return await self._write_whole(state, fresh)

    async def _answer_stream(self, state: _RequestState) -> Stream:
        """Wait for the first piece, so that an earlier failure is a plain error. Then stream all pieces."""
        orchestrator = state.runtime.orchestrator
        state.facts.started = started = await orchestrator.start(state.task, arrival=self._arrive(state))
        pieces = await orchestrator.stream(started)
        first = asyncio.ensure_future(anext(pieces))
        stream: Stream | None = None
        try:
            done, _ = await asyncio.wait({first}, timeout=COMMENT_S)
            headers = make_stream_headers(started, lost=first.result().lost if done else ()) | _NO_CACHE
            stream = Stream(self._emit(state, started, first, pieces), headers=headers)
        finally:
            if stream is None:
                await _abandon(first, pieces)
        return stream

    async def _emit(
        self, state: _RequestState, started: Started, first: "asyncio.Future[Piece]", pieces: AsyncIterator[Piece]
    ) -> AsyncIterator[bytes]:
        facts, decision, recorder = state.facts, started.decision, started.recorder
        writer: StreamWriter | None = None
        self._metrics.open_streams.inc()
        try:
            while not first.done():
                await asyncio.wait({first}, timeout=COMMENT_S)
                if not first.done():
                    yield state.dialect.comment
            writer = _make_writer(state, decision.id, recorder.serving or decision.worker)
            add = writer.add
            if data := add(first.result()):
                yield data
            async for piece in pieces:
                if data := add(piece):
                    yield data
            answered = started.result()
            await self._keep(state, answered.answer, _make_source(state, decision.id, answered.run.worker))
            yield writer.end(describe_answer(answered).body)
        except RipienoError as error:
            facts.error = error
            writer = writer or _make_writer(state, decision.id, decision.worker)
            yield writer.fail(make_fault(error, request=facts.id))
        except (asyncio.CancelledError, GeneratorExit):
            facts.status = CLIENT_LEFT
            raise
        finally:
            self._metrics.open_streams.dec()
            await _abandon(first, pieces)
            if isinstance(recorder.ended, Answered):
                facts.worker = recorder.ended.run.worker
                self._reasonings.remember(recorder.ended.answer, facts.worker)
            await self._end(state)

    async def _end(self, state: _RequestState) -> None:
        """Release what a request holds, and count what it used."""
        self._in_flight -= 1
        self._metrics.in_flight.dec()
        facts, session = state.facts, state.options.session
        started = facts.started
        if facts.worker is not None and session is not None:
            self._sessions.remember(session, facts.grant.id, WorkerId(facts.worker))
        if not state.is_admitted:
            return
        if state.account is not None:
            _close_account(state.account, started)
        tokens, cost_usd = 0, 0.0  # without a call there is no cost
        if started is not None:
            tokens = sum(call.tokens for call in (*started.recorder.calls, *started.recorder.beside))
            cost_usd = started.recorder.cost_usd
        await self._keyring.leave(facts.grant, cost_usd=cost_usd, tokens=tokens)

    def _arrive(self, state: _RequestState) -> Arrival:
        session, grant = state.options.session, state.facts.grant
        incumbent = self._sessions.find(session, grant.id) if session is not None else None
        arrival = make_arrival(
            self._app.clock, name=state.facts.name, incumbent=incumbent, key=grant.id, check=state.options.check
        )
        state.account = self._keyring.open(grant, arrival.id)
        arrival = replace(arrival, account=state.account)
        scope = state.options.memory
        if scope is None:
            return arrival
        return replace(arrival, memory=restrict_scope(scope, grant), thread=session or "")

    async def _write_whole(self, state: _RequestState, made: CachedAnswer) -> Response:
        """Write a whole answer, keep it where the client asks for that, and note its worker."""
        state.facts.worker = made.worker
        source = _make_source(state, made.decision, made.worker, made.provenance.body)
        await self._keep(state, made.answer, source)
        return Response(state.dialect.write(state.parsed, made.answer, source), headers=made.provenance.headers)

    async def _keep(self, state: _RequestState, answer: Answer, source: ResponseSource) -> None:
        if state.thread is not None:
            await self._stored.keep(state.thread, state.parsed, answer, source)

    def _name_cached(self, state: _RequestState) -> bytes | None:
        options = state.options
        if options.memory is not None:
            return None
        if not (state.runtime.settings.cache.answers if options.may_cache is None else options.may_cache):
            return None
        return name_request(state.task, state.facts.grant, check=options.check)

    def _enter(self, most: int) -> None:
        if self._in_flight >= most:
            raise Overloaded(f"{most} requests run already, and the gateway accepts no more", retry_after_s=1.0)
        self._in_flight += 1
        self._metrics.in_flight.inc()


def _make_task(parsed: ParsedRequest, objective: Objective, budget: Budget, kind: str | None) -> Task:
    return Task(
        messages=parsed.messages,
        tools=parsed.tools,
        params=parsed.params,
        served_tools=parsed.served_tools,
        native=parsed.native,
        objective=objective,
        budget=budget,
        kind=kind,
    )


def _find_doubt(pool: Pool, started: Started | None, error: ProviderError) -> InDoubt | None:
    """Return the error for a failed call with effects, which keeps the client from sending it again.

    None if the call certainly had no effect: it was never sent, or the provider refused it.
    """
    if started is None or error.worker not in pool or not pool[error.worker].has_effects:
        return None
    if error.is_unsent or (isinstance(error, ProviderRejected) and not error.blames_worker):
        return None
    calls = started.recorder.calls
    step = calls[-1].step if calls else ""
    return InDoubt(started.decision.id, step=step, worker=error.worker)


def _close_account(account: Account, started: Started | None) -> None:
    """Close the account of a request. If its calls are unknown, it costs what it reserved."""
    if started is not None:
        recorder, is_claimed = started.recorder, started.journal is not None
        account.close(cost_usd=recorder.own_cost_usd, is_recorded=bool(recorder.calls) or is_claimed)
    else:
        account.close(cost_usd=None, is_recorded=True)


async def _abandon(first: "asyncio.Future[Piece]", pieces: AsyncIterator[Piece]) -> None:
    """Cancel the first read and close the stream. Discard the first piece's result."""
    first.cancel()
    await asyncio.wait({first})
    if not first.cancelled():
        first.exception()
    await pieces.aclose()  # type: ignore[attr-defined]  # an async generator


def _make_writer(state: _RequestState, decision: str, worker: str) -> StreamWriter:
    return state.dialect.stream(state.parsed, _make_source(state, decision, worker))


def _make_source(state: _RequestState, decision: str, worker: str, provenance: JsonValue = None) -> ResponseSource:
    created = int(time.time())
    return ResponseSource(
        request=state.facts.id, decision=decision, worker=worker, created=created, provenance=provenance
    )


_NO_CACHE = {"cache-control": "no-cache", "x-accel-buffering": "no"}
