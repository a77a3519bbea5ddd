"""Caller: one exchange with one worker, with retries, limits, price and health. Failures are returned as values."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import msgspec

from ripieno.domain import Answer, Call, Clock, Failure, JsonValue, Pool, Task, Usage, Worker, sum_costs
from ripieno.domain.run import CHARACTERS_PER_TOKEN
from ripieno.errors import (
    BadAnswer,
    ConfigError,
    InvalidTask,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnreachable,
    WithheldTask,
    WorkerBusy,
)
from ripieno.privacy import Boundary, describe_kinds
from ripieno.providers.base import Embedder, Forwarded, Forwarder, Provider
from ripieno.providers.health import WorkerHealth
from ripieno.providers.lane import Lanes
from ripieno.providers.leases import Leases
from ripieno.providers.result import CallAnswered, CallFailed, CallResult, LiveCall
from ripieno.wires.pieces import EMPTY_ENDS, Assembly, Piece, hold_back

ATTEMPTS = 2
"""Attempts per worker. After them, the next worker is a better retry."""
LONGEST_RETRY_AFTER_S = 2.0
"""Longest wait that a retry accepts. If the provider asks for more, another worker is called."""
BACKOFF_S = 0.2
"""Longest wait before the first retry. It doubles for each further retry."""


class Caller:
    """Calls workers through their providers. Sensitive content never passes it to a worker beyond the boundary.

    Args:
        boundary: limits where sensitive text may travel; None does not restrict it.
        lanes: the calls of each worker; new ones by default.
        leases: the calls of each provider; new ones by default.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        health: WorkerHealth,
        clock: Clock,
        boundary: Boundary | None = None,
        lanes: Lanes | None = None,
        leases: Leases | None = None,
    ) -> None:
        self.health = health
        self.lanes = lanes or Lanes()
        self._leases = leases or Leases()
        self._boundary = boundary
        self._providers = providers
        self._clock = clock
        self._rng = random.Random()  # noqa: S311  # spreads waits; no secret depends on it

    async def call(self, worker: Worker, task: Task, *, attempts: int = ATTEMPTS) -> CallResult:
        """Request a whole answer. A failure is returned, not raised."""
        start = began = self._clock.monotonic()
        tries = 0
        wasted: list[float | None] = []
        while True:
            tries += 1
            try:
                await self._withhold(worker, task)
                async with self._turn(worker) as provider:
                    began = self._clock.monotonic()
                    with _translating(worker):
                        answer = await provider.complete(worker, task)
                break
            except (ProviderError, ConfigError) as fault:
                error = _as_provider_error(worker, fault)
                if tries >= attempts or not is_worth_retrying(error):
                    self._note_failure(worker, error)
                    failed = _fail(worker, task, error, latency_s=self._clock.monotonic() - start, attempts=tries)
                    return replace(failed, call=_add_costs(failed.call, wasted))
                if not is_unbilled(error):
                    wasted.append(_settle(worker, task, Answer(text=""), latency_s=0.0, attempts=1).cost_usd)
                await asyncio.sleep(_choose_wait(error, tries, self._rng))
        self.health.note_success(worker.id)
        latency = self._clock.monotonic() - (start if tries > 1 else began)
        call = _settle(worker, task, answer, latency_s=latency, attempts=tries)
        return CallAnswered(call=_add_costs(call, wasted), answer=_state_usage(answer, call))

    async def stream(self, live: LiveCall, task: Task) -> AsyncIterator[Piece]:
        """Request an answer piece by piece. The first piece has content, or ends the answer.

        Raises:
            ProviderError: the worker failed. Before the first piece, another worker may replace it.
        """
        worker, start = live.worker, self._clock.monotonic()
        collected = Assembly()
        try:
            await self._withhold(worker, task)
            async with self._turn(worker) as provider:
                with _translating(worker):
                    pieces = provider.stream(worker, task)
                    async for piece in hold_back(pieces, collected, lambda: self._clock.monotonic() - start):
                        yield piece
            if not collected.has_content and collected.finish_reason not in EMPTY_ENDS:
                raise BadAnswer(f"{worker.id!r} answered nothing", worker=worker.id)
        except ProviderError as error:
            partial = collected.answer() if collected.has_content else None
            self._note_failure(worker, error)
            live.ended = _fail(worker, task, error, latency_s=self._clock.monotonic() - start, partial=partial)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            live.ended = _cancel(worker, task, collected.answer(), latency_s=self._clock.monotonic() - start)
            raise
        self.health.note_success(worker.id)
        answer = collected.answer()
        call = _settle(worker, task, answer, latency_s=self._clock.monotonic() - start, attempts=1)
        call = replace(call, first_token_s=collected.first_s)
        live.ended = CallAnswered(call=call, answer=_state_usage(answer, call))
        if answer.usage.output_tokens is None:
            yield Piece(usage=call.usage)

    async def measure(self, worker: Worker, task: Task) -> CallResult:
        """Call the worker, and time the first token if the provider streams. Failures are returned, as in `call`."""
        if not self._find(worker).can_stream:
            return await self.call(worker, task)
        live = LiveCall(worker)
        try:
            async for _ in self.stream(live, task):
                pass
        except ProviderError as error:
            if is_worth_retrying(error):
                return await self.call(worker, task, attempts=ATTEMPTS - 1)
        return live.result()

    async def embed(self, worker: Worker, body: Mapping[str, JsonValue]) -> bytes:
        """Request embeddings, and return the reply as received.

        Raises:
            InvalidTask: the worker makes no embeddings.
            ProviderError: the worker failed.
        """
        provider = self._find(worker)
        if not isinstance(provider, Embedder):
            raise InvalidTask(f"{worker.id!r} makes no embeddings", param="model")
        await self._withhold(worker, body)
        async with self._turn(worker):
            return await provider.embed(worker, body)

    async def forward(self, worker: Worker, path: str, body: Mapping[str, JsonValue]) -> Forwarded:
        """Pass a request of a further route on, and return the reply as received.

        Raises:
            InvalidTask: the worker takes no such requests.
            ProviderError: the worker failed.
        """
        provider = self._find(worker)
        if not isinstance(provider, Forwarder):
            raise InvalidTask(f"{worker.id!r} takes no requests for {path}", param="model")
        await self._withhold(worker, body)
        async with self._turn(worker):
            return await provider.forward(worker, path, body)

    def abandon(self, worker: Worker, task: Task, *, latency_s: float) -> CallFailed:
        """Price a call that was cancelled before its end. The sent prompt is billed anyway."""
        return _cancel(worker, task, Answer(text=""), latency_s=latency_s)

    async def check(self, worker: Worker) -> str:
        """Check whether the worker could answer now."""
        return await self._find(worker).check(worker)

    async def close(self) -> None:
        """Close all providers."""
        for provider in self._providers.values():
            await provider.close()

    async def _withhold(self, worker: Worker, sent: Task | Mapping[str, JsonValue]) -> None:
        """Refuse to send content beyond the boundary, for every step, judge or extraction.

        Raises:
            WithheldTask: the content holds secrets or personal data, and the worker is beyond the boundary.
        """
        boundary = self._boundary
        if boundary is None or worker.privacy.reach <= boundary.reach.reach:
            return
        found = await (boundary.find_in(sent) if isinstance(sent, Task) else boundary.find(sent))
        if found:
            raise WithheldTask(
                f"{worker.id!r} is {worker.privacy}, and the text holds {describe_kinds(found)}: nothing was sent",
                worker=worker.id,
                hint=f"name a worker that is {boundary.reach}, or remove the text",
            )

    @asynccontextmanager
    async def _turn(self, worker: Worker) -> AsyncIterator[Provider]:
        """Wait for a slot of the worker, and keep its provider open while the block runs.

        Raises:
            WorkerBusy: the queue is full.
        """
        provider = self._find(worker)
        async with self.lanes.find(worker).turn(worker):
            with self._leases.hold(provider):
                yield provider

    def _find(self, worker: Worker) -> Provider:
        provider = self._providers.get(worker.binding.provider)
        if provider is None:
            raise ConfigError(
                f"worker {worker.id!r} names the provider {worker.binding.provider!r}, which is not configured",
                key=f"workers.{worker.id}.provider",
            )
        return provider

    def _note_failure(self, worker: Worker, error: ProviderError) -> None:
        """Record a failure in the worker's health, if it is the worker's own."""
        if error.retry_after_s is not None and not isinstance(error, WorkerBusy):
            self.health.note_wait(worker.id, error.retry_after_s)
        is_rejected = isinstance(error, ProviderRejected)
        is_blameless = isinstance(error, ProviderRejected) and not error.blames_worker
        if isinstance(error, WorkerBusy | WithheldTask) or is_blameless:
            return
        self.health.note_failure(worker.id, classify_failure(error).value, is_final=is_rejected)


async def probe_resting(caller: Caller, pool: Pool) -> None:
    """Probe the unreachable workers, and close the breaker of each that responds.

    Raises:
        Exception: a provider plugin's check raised it. All workers were probed first.
    """
    fault: Exception | None = None
    for worker in caller.health.unreachable():
        if worker not in pool:
            continue
        try:
            await caller.check(pool[worker])
        except ProviderUnreachable:
            continue
        except (ProviderError, ConfigError):
            pass  # it responds: the next task will show the fault
        except Exception as error:  # noqa: BLE001  # plugin code: the others are still probed
            fault = error
            continue
        caller.health.note_reachable(worker)
    if fault is not None:
        raise fault


def _fail(
    worker: Worker,
    task: Task,
    error: ProviderError,
    *,
    latency_s: float,
    attempts: int = 1,
    partial: Answer | None = None,
) -> CallFailed:
    is_nothing = is_unbilled(error) and partial is None
    nothing = Usage(input_tokens=0, output_tokens=0) if is_nothing else Usage()
    call = _settle(worker, task, partial or Answer(text="", usage=nothing), latency_s=latency_s, attempts=attempts)
    if is_nothing and call.cost_usd is None:
        call = replace(call, cost_usd=0.0)  # nothing was generated, so nothing is charged
    return CallFailed(call=replace(call, failure=classify_failure(error), error=error.message), error=error)


def _settle(worker: Worker, task: Task, answer: Answer, *, latency_s: float, attempts: int) -> Call:
    usage = _complete_usage(answer, task)
    priced = worker.price.price(usage)
    return Call(
        worker=worker.id,
        worker_version=worker.version,
        usage=usage,
        cost_usd=priced if answer.cost_usd is None else answer.cost_usd,
        latency_s=latency_s if answer.latency_s is None else answer.latency_s,
        attempts=attempts,
    )


def _cancel(worker: Worker, task: Task, partial: Answer, *, latency_s: float) -> CallFailed:
    call = _settle(worker, task, partial, latency_s=latency_s, attempts=1)
    error = ProviderError(f"the call of {worker.id!r} was cancelled", worker=worker.id)
    return CallFailed(call=replace(call, failure=Failure.CANCELLED), error=error)


def _add_costs(call: Call, wasted: Sequence[float | None]) -> Call:
    """Add the cost of earlier attempts to a call: an unusable reply is billed, too."""
    if not wasted:
        return call
    known, unknown = sum_costs([call.cost_usd, *wasted])
    return replace(call, cost_usd=None if unknown else known)


def _complete_usage(answer: Answer, task: Task) -> Usage:
    """Estimate the tokens of a call that ended without usage: the prompt was read and billed.

    Not every server counts its streams, and none does if the client disconnects.
    """
    usage = answer.usage
    if usage.output_tokens is not None:
        return usage
    asked = sum(len(message.text) for message in task.messages)
    said = len(answer.text) or len(msgspec.json.encode(answer.content)) * bool(answer.content)
    return replace(
        usage,
        input_tokens=usage.input_tokens if usage.input_tokens is not None else 1 + int(asked / CHARACTERS_PER_TOKEN),
        output_tokens=1 + int(said / CHARACTERS_PER_TOKEN) if said else 0,
    )


def _state_usage(answer: Answer, call: Call) -> Answer:
    """Return the answer with the counts of its call, so that the client reads what the ledger holds."""
    return answer if answer.usage.output_tokens is not None else replace(answer, usage=call.usage)


_UNBILLED = frozenset({Failure.UNREACHABLE, Failure.REJECTED, Failure.RATE_LIMITED, Failure.SERVER_ERROR, Failure.BUSY})
"""Failures of calls that generated nothing."""


def is_unbilled(error: ProviderError) -> bool:
    """Return whether a call that failed so generated nothing, and costs nothing."""
    return classify_failure(error) in _UNBILLED


def classify_failure(error: ProviderError) -> Failure:
    """Return the kind of failure of a call."""
    match error:
        case ProviderTimeout():
            return Failure.TIMEOUT
        case ProviderUnreachable():
            return Failure.UNREACHABLE
        case ProviderRejected() | WithheldTask():
            return Failure.REJECTED
        case BadAnswer():
            return Failure.BAD_ANSWER
        case WorkerBusy():
            return Failure.BUSY
        case _:
            is_limited = error.retry_after_s is not None or error.status == 429
            return Failure.RATE_LIMITED if is_limited else Failure.SERVER_ERROR


def is_worth_retrying(error: ProviderError) -> bool:
    """Return whether an immediate retry with the same worker may succeed."""
    if not error.is_transient or isinstance(error, ProviderTimeout | WorkerBusy):
        return False
    return error.retry_after_s is None or error.retry_after_s <= LONGEST_RETRY_AFTER_S


def _choose_wait(error: ProviderError, tries: int, rng: random.Random) -> float:
    """Return the provider's requested wait in seconds, or else a random part of a doubling bound.

    Source:
        Brooker (2015), Exponential backoff and jitter: "full jitter".
    """
    if error.retry_after_s is not None:
        return error.retry_after_s
    return rng.uniform(0.0, BACKOFF_S * 2.0 ** (tries - 1))


@contextmanager
def _translating(worker: Worker) -> Iterator[None]:
    """Run a provider's code. Any other error of it becomes a provider error."""
    try:
        yield
    except (ProviderError, ConfigError) as error:
        raise _as_provider_error(worker, error) from error
    except Exception as error:
        raise BadAnswer(f"{worker.id!r}: {type(error).__name__}: {error}", worker=worker.id) from error


def _as_provider_error(worker: Worker, error: ProviderError | ConfigError) -> ProviderError:
    if isinstance(error, ProviderError):
        return error
    rejected = ProviderRejected(error.message, worker=worker.id, hint=error.hint)
    rejected.blames_worker = True
    return rejected
