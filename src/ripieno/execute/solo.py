"""Solo: failover, hedging and streaming of a single worker. Failures are recorded, not raised."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from ripieno.domain import Decision, Solo, Task, Worker
from ripieno.errors import BudgetExhausted, ProviderError, UnknownPrice
from ripieno.execute.budget import RunBudget
from ripieno.execute.execution import Ending, Started, in_time
from ripieno.execute.failover import choose_next, is_refusal
from ripieno.execute.resume import Resumption
from ripieno.providers import CallAnswered, Caller, CallFailed, CallResult, LiveCall, Piece, require_answer

LATE_SDS = 1.645
"""Standard deviations of log latency to its 95th percentile."""
MOST_SAVED = 10.0
"""Most hedges that can accumulate while traffic needs none."""


class SoloRunner:
    """Calls one worker after the other until one answers."""

    def __init__(self, caller: Caller, *, hedge_share: float = 0.0, resumes: bool = False) -> None:
        self._caller = caller
        self._resumes = resumes
        self._hedges = Allowance(hedge_share)

    async def ask(self, started: Started, workflow: Solo) -> CallAnswered:
        """Request a whole answer. The result of each call is recorded.

        Raises:
            ProviderError: every called worker failed.
            DeadlineExceeded: the deadline passed before any worker answered.
            BudgetExhausted: a ceiling left no room for a call, or the budget's time ended before an answer.
        """
        async with in_time(started):
            return await self._try_each(started, _candidates(started, workflow))

    async def _try_each(self, started: Started, workers: Sequence[Worker]) -> CallAnswered:
        budget = _make_budget(started)
        self._hedges.credit()
        late_s = _find_late(started.decision) if len(workers) > 1 and self._hedges.has_any else None
        failed: CallFailed | None = None
        refusals = 0
        while True:
            try:
                if late_s is not None:
                    asked, result = await self._hedge(started, budget, workers[:2], late_s)
                else:
                    asked, result = 1, await self._ask_one(started, budget, workers[0])
            except BudgetExhausted as refused:
                if failed is None:
                    raise
                raise failed.error from refused
            if isinstance(result, CallAnswered):
                return result
            refusals += is_refusal(result.error)
            last, late_s, failed = workers[asked - 1], None, result
            workers = choose_next(workers[asked:], last, result.error, refusals=refusals)
            if not workers or not _has_money(started):
                raise result.error

    async def _ask_one(self, started: Started, budget: RunBudget, worker: Worker) -> CallResult:
        try:
            result = await budget.call(self._caller, worker, started.task)
        except asyncio.CancelledError:
            if budget.abandoned is not None:
                started.recorder.record(budget.abandoned)
            raise
        started.recorder.record(result.call)
        return result

    async def _hedge(
        self, started: Started, budget: RunBudget, pair: Sequence[Worker], late_s: float
    ) -> tuple[int, CallResult]:
        """Call the second worker once the first is late. Return the number of calls, and the result that counts.

        The first answer counts. The other call is cancelled, and recorded with its cost.

        Raises:
            BudgetExhausted: the budget refused the first call.
        """
        asked = [asyncio.create_task(budget.call(self._caller, pair[0], started.task))]
        try:
            done, waiting = await asyncio.wait(asked, timeout=late_s)
            if not done:
                self._hedges.spend()
                asked.append(asyncio.create_task(budget.call(self._caller, pair[1], started.task)))
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
        """Record both calls, the one that counts last, without a call that the budget refused."""
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
        """Request an answer piece by piece. Before the first piece, another worker replaces a failed one.

        After it, another worker continues the text, where that is allowed.

        Raises:
            ProviderError: every worker failed, or one failed after its first piece.
            DeadlineExceeded: the deadline passed before the first piece.
        """
        workers, budget = _candidates(started, workflow), _make_budget(started)
        failed: ProviderError | None = None
        refusals, task, said = 0, started.task, Resumption(is_allowed=self._resumes)
        with Ending(started):
            while workers:
                worker = workers[0]
                live = LiveCall(worker)
                started.recorder.serving = worker.id
                pieces = self._stream_one(started, budget, live, task)
                has_begun = False
                try:
                    async for piece in pieces:
                        has_begun = True
                        yield said.take(piece)
                except ProviderError as error:
                    refusals += is_refusal(error)
                    workers = choose_next(workers[1:], worker, error, refusals=refusals)
                    if not workers or not _has_money(started) or (has_begun and not said.can_continue()):
                        raise
                    if has_begun:
                        task = said.continue_task(started.task, worker.id)
                    failed = error
                    continue
                except BudgetExhausted as refused:
                    if failed is None or live.ended is not None:
                        raise
                    raise failed from refused  # no money for another worker: the first fault counts
                finally:
                    await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
                result = require_answer(live.result())
                started.end(replace(result, answer=said.merge(result.answer, worker.id)))
                return

    async def _stream_one(
        self, started: Started, budget: RunBudget, live: LiveCall, task: Task
    ) -> AsyncIterator[Piece]:
        """Yield the pieces of one worker, within budget and time. The call is always recorded."""
        async with budget.reserve(live.worker, task) as hold:
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
    """Limits an action to a share of tasks: each task earns a part, and each use spends one.

    Args:
        share: share of tasks, in [0, 1].
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = 0.0

    @property
    def has_any(self) -> bool:
        """Return whether a use is allowed now."""
        return self._left >= 1.0

    def credit(self) -> None:
        """Add the part that a new task earns."""
        self._left = min(self._left + self._share, MOST_SAVED)

    def spend(self) -> None:
        """Subtract one use."""
        self._left -= 1.0


def _find_late(decision: Decision) -> float | None:
    """Return the chosen worker's 95th latency percentile, in seconds; None if it was not measured."""
    estimate = next((e for e in decision.estimates if e.worker == decision.worker and e.is_measured), None)
    if estimate is None:
        return None
    return estimate.latency_s * math.exp(LATE_SDS * estimate.latency_log_sd)


def _is_good(task: "asyncio.Task[CallResult]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and isinstance(task.result(), CallAnswered)


def _candidates(started: Started, workflow: Solo) -> list[Worker]:
    """Return the workers that may be called, the chosen one first. Restricted workers are no fallbacks."""
    pool, most = started.pool, started.task.budget.calls
    chosen, *others = [pool[worker] for worker in workflow.workers]
    workers = [chosen, *(worker for worker in others if not worker.is_restricted)]
    return workers if most is None else workers[: max(1, most)]


def _make_budget(started: Started) -> RunBudget:
    return RunBudget(started.task.budget, started.account, started.recorder)


def _has_money(started: Started) -> bool:
    """Return whether the task's budget leaves money for another call."""
    ceiling = started.task.budget.cost_usd
    return ceiling is None or started.recorder.cost_usd < ceiling
