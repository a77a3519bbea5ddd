"""Solo: failover, hedging and streaming of a single worker; what fails is recorded, not raised."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

from ripieno.domain import Decision, Solo, Worker
from ripieno.errors import BudgetExhausted, ProviderError, ProviderRejected, UnknownPrice
from ripieno.execute.budget import Purse
from ripieno.execute.execution import Ending, Started, in_time
from ripieno.providers import CallAnswered, Caller, CallFailed, CallResult, LiveCall, Piece, require_answer

LATE_SDS = 1.645
"""Standard deviations of log latency to its 95th percentile."""
MOST_SAVED = 10.0
"""Hedges that a quiet hour may save up."""


class SoloRunner:
    """Asks one worker after the other until one answers.

    Args:
        caller: how workers are called.
        hedge_share: share of tasks for which a second worker may be asked while the first is late.
    """

    def __init__(self, caller: Caller, *, hedge_share: float = 0.0) -> None:
        self._caller = caller
        self._hedges = Allowance(hedge_share)

    async def ask(self, started: Started, workflow: Solo) -> CallAnswered:
        """Ask for a whole answer; what each call met is recorded.

        Raises:
            ProviderError: every worker that was asked failed.
            DeadlineExceeded: the deadline passed before any worker answered.
            BudgetExhausted: a ceiling left no room for a call, or the budget's time ended before an answer.
        """
        async with in_time(started):
            return await self._try_each(started, _candidates(started, workflow))

    async def _try_each(self, started: Started, workers: Sequence[Worker]) -> CallAnswered:
        purse = _open_purse(started)
        self._hedges.credit()
        late_s = _find_late(started.decision) if len(workers) > 1 and self._hedges.has_any else None
        failed: CallFailed | None = None
        while True:
            try:
                if late_s is not None:
                    asked, result = await self._hedge(started, purse, workers[:2], late_s)
                else:
                    asked, result = 1, await self._ask_one(started, purse, workers[0])
            except BudgetExhausted as refused:
                if failed is None:
                    raise
                raise failed.error from refused
            if isinstance(result, CallAnswered):
                return result
            workers, late_s, failed = workers[asked:], None, result
            if not workers or not _may_go_on(started, result.error):
                raise result.error

    async def _ask_one(self, started: Started, purse: Purse, worker: Worker) -> CallResult:
        try:
            result = await purse.call(self._caller, worker, started.task)
        except asyncio.CancelledError:
            if purse.abandoned is not None:
                started.recorder.record(purse.abandoned)
            raise
        started.recorder.record(result.call)
        return result

    async def _hedge(
        self, started: Started, purse: Purse, pair: Sequence[Worker], late_s: float
    ) -> tuple[int, CallResult]:
        """Ask the second worker too once the first is late; returns how many were asked, and the result that counts.

        The first answer counts; the other call is cancelled, and recorded with what it has cost.

        Raises:
            BudgetExhausted: the budget refused the first call already.
        """
        asked = [asyncio.create_task(purse.call(self._caller, pair[0], started.task))]
        try:
            done, waiting = await asyncio.wait(asked, timeout=late_s)
            if not done:
                self._hedges.spend()
                asked.append(asyncio.create_task(purse.call(self._caller, pair[1], started.task)))
                waiting = set(asked)
            while waiting and not any(_is_good(task) for task in done):
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        finally:
            for task in asked:
                task.cancel()
            results = self._record_pair(started, pair, asked)
        return len(asked), results[-1] if results else asked[0].result()

    def _record_pair(
        self, started: Started, pair: Sequence[Worker], asked: "Sequence[asyncio.Task[CallResult]]"
    ) -> list[CallResult]:
        """Record both calls, the one whose answer counts last; one that the budget refused was not made."""
        waited = asyncio.get_running_loop().time() - started.began
        results = [
            task.result() if task.done() else self._caller.abandon(worker, started.task, latency_s=waited)
            for worker, task in zip(pair, asked, strict=False)
            if not (task.done() and isinstance(task.exception(), BudgetExhausted | UnknownPrice))
        ]
        results.sort(key=lambda one: isinstance(one, CallAnswered))
        started.recorder.record(*(one.call for one in results))
        return results

    async def stream(self, started: Started, workflow: Solo) -> AsyncIterator[Piece]:
        """Ask for an answer piece by piece; before the first piece a failed worker is replaced unseen.

        Raises:
            ProviderError: every worker failed, or one broke off after its first piece.
            DeadlineExceeded: the deadline passed before the first piece.
        """
        workers, purse = _candidates(started, workflow), _open_purse(started)
        failed: ProviderError | None = None
        with Ending(started):
            for place, worker in enumerate(workers, start=1):
                live = LiveCall(worker)
                started.recorder.serve(worker.id)
                pieces = self._stream_one(started, purse, live)
                has_begun = False
                try:
                    async for piece in pieces:
                        has_begun = True
                        yield piece
                except ProviderError as error:
                    if has_begun or place == len(workers) or not _may_go_on(started, error):
                        raise
                    failed = error
                    continue
                except BudgetExhausted as refused:
                    if failed is None or live.ended is not None:
                        raise
                    raise failed from refused  # no money is left for another worker: the first one's fault counts
                finally:
                    await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
                started.end(require_answer(live.result()))
                return

    async def _stream_one(self, started: Started, purse: Purse, live: LiveCall) -> AsyncIterator[Piece]:
        """Yield the pieces of one worker, within the budget and in time; the call is recorded however it ends."""
        async with purse.reserve(live.worker, started.task) as hold:
            pieces = self._caller.stream(live, hold.task)
            try:
                async with in_time(started):
                    first = await anext(pieces, None)
                if first is not None:
                    yield first
                    async for piece in pieces:
                        yield piece
            finally:
                await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
                if live.ended is not None:
                    hold.call = live.ended.call
                    started.recorder.record(hold.call)


class Allowance:
    """A share of tasks that something may be done for: each task earns a part, each use spends a whole.

    Args:
        share: in [0, 1].
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = 0.0

    @property
    def has_any(self) -> bool:
        """Whether it may be done now."""
        return self._left >= 1.0

    def credit(self) -> None:
        """Add the part that a new task earns."""
        self._left = min(self._left + self._share, MOST_SAVED)

    def spend(self) -> None:
        """Take off the whole that one use costs."""
        self._left -= 1.0


def _find_late(decision: Decision) -> float | None:
    """Return when the chosen worker is later than in 19 of 20 tasks, in seconds; None where nothing is known of it."""
    estimate = next((e for e in decision.estimates if e.worker == decision.worker and e.is_measured), None)
    if estimate is None:
        return None
    return estimate.latency_s * math.exp(LATE_SDS * estimate.latency_log_sd)


def _is_good(task: "asyncio.Task[CallResult]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and isinstance(task.result(), CallAnswered)


def _candidates(started: Started, workflow: Solo) -> list[Worker]:
    """Return the workers that may be asked, the chosen one first; none of the others is careful."""
    pool, most = started.pool, started.task.budget.calls
    chosen, *others = [pool[worker] for worker in workflow.workers]
    workers = [chosen, *(worker for worker in others if not worker.is_careful)]
    return workers if most is None else workers[: max(1, most)]


def _open_purse(started: Started) -> Purse:
    return Purse(started.task.budget, started.account, started.recorder)


def _may_go_on(started: Started, error: ProviderError) -> bool:
    """Return whether a further worker may be asked: the last one failed by its own fault, and money is left."""
    if isinstance(error, ProviderRejected) and not error.blames_worker:
        return False
    ceiling = started.task.budget.cost_usd
    return ceiling is None or started.recorder.cost_usd < ceiling
