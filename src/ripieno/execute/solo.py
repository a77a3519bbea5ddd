"""Solo: failover, hedging and streaming of a single worker; what fails is recorded, not raised."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

from ripieno.domain import Pool, Solo, Worker
from ripieno.errors import BudgetExhausted, ProviderError, ProviderRejected, UnknownPrice
from ripieno.execute.budget import Purse
from ripieno.execute.execution import Execution, in_time
from ripieno.providers import Called, Caller, LiveCall, Piece

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

    async def execute(self, execution: Execution, pool: Pool) -> None:
        """Ask for a whole answer; what each call met stands in the execution, and nothing else is told.

        Raises:
            DeadlineExceeded: the deadline passed before any worker answered.
            BudgetExhausted: the budget's time ended before.
        """
        if execution.limit_s is None:
            await self._try_each(execution, pool)
            return
        async with in_time(execution):
            await self._try_each(execution, pool)

    async def _try_each(self, execution: Execution, pool: Pool) -> None:
        workers, purse = _candidates(execution, pool), Purse(execution)
        self._hedges.earn()
        late_s = _find_late(execution) if len(workers) > 1 and self._hedges.has_any else None
        if late_s is not None:
            workers = workers[await self._hedge(execution, purse, workers[:2], late_s) :]
            if not _may_go_on(execution):
                return
        for worker in workers:
            try:
                execution.called = await purse.call(self._caller, worker, execution.task)
            except BudgetExhausted:
                if not execution.calls:
                    raise
                return
            except asyncio.CancelledError:
                execution.calls += [purse.abandoned] if purse.abandoned is not None else []
                raise
            execution.calls.append(execution.called.call)
            if not _may_go_on(execution):
                return

    async def _hedge(self, execution: Execution, purse: Purse, pair: Sequence[Worker], late_s: float) -> int:
        """Ask the second worker too once the first is late; gives how many were asked.

        The first answer counts; the other call is cancelled, and recorded with what it has cost.
        """
        asked = [asyncio.create_task(purse.call(self._caller, pair[0], execution.task))]
        try:
            done, waiting = await asyncio.wait(asked, timeout=late_s)
            if not done:
                self._hedges.spend()
                asked.append(asyncio.create_task(purse.call(self._caller, pair[1], execution.task)))
                waiting = set(asked)
            while waiting and not any(_is_good(task) for task in done):
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        finally:
            for task in asked:
                task.cancel()
            self._note_pair(execution, pair, asked)
        return len(asked)

    def _note_pair(self, execution: Execution, pair: Sequence[Worker], asked: "Sequence[asyncio.Task[Called]]") -> None:
        """Record both calls, the one whose answer counts last; one that the budget refused was not made.

        Raises:
            BudgetExhausted: the budget refused the first call already.
        """
        waited = asyncio.get_running_loop().time() - execution.began
        called = [
            task.result() if task.done() else self._caller.abandon(worker, execution.task, latency_s=waited)
            for worker, task in zip(pair, asked, strict=False)
            if not (task.done() and isinstance(task.exception(), BudgetExhausted | UnknownPrice))
        ]
        called.sort(key=lambda one: one.answer is not None)
        execution.calls += [one.call for one in called]
        execution.called = called[-1] if called else asked[0].result()

    async def stream(self, execution: Execution, pool: Pool) -> AsyncIterator[Piece]:
        """Ask for an answer piece by piece; before the first piece a failed worker is replaced unseen.

        Raises:
            ProviderError: every worker failed, or one broke off after its first piece.
            DeadlineExceeded: the deadline passed before the first piece.
        """
        purse = Purse(execution)
        for worker in _candidates(execution, pool):
            live = LiveCall(worker)
            execution.serving = worker.id
            pieces = self._stream_one(execution, purse, live)
            has_begun = False
            try:
                async for piece in pieces:
                    has_begun = True
                    yield piece
            except ProviderError:
                if has_begun or not _may_go_on(execution):
                    raise
                continue
            except BudgetExhausted:
                if not execution.calls or live.called is not None:
                    raise
                break  # no money is left for another worker: what went wrong with the first one is told
            finally:
                await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
            return
        assert execution.error is not None
        raise execution.error

    async def _stream_one(self, execution: Execution, purse: Purse, live: LiveCall) -> AsyncIterator[Piece]:
        """The pieces of one worker, within the budget and in time; the call is recorded however it ends."""
        async with purse.reserve(live.worker, execution.task) as hold:
            pieces = self._caller.stream(live, hold.task)
            try:
                async with in_time(execution):
                    first = await anext(pieces, None)
                if first is not None:
                    yield first
                    async for piece in pieces:
                        yield piece
            finally:
                await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
                if live.called is not None:
                    execution.called = live.called
                    hold.call = live.called.call
                    execution.calls.append(hold.call)


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

    def earn(self) -> None:
        """A task has come."""
        self._left = min(self._left + self._share, MOST_SAVED)

    def spend(self) -> None:
        """It is done."""
        self._left -= 1.0


def _find_late(execution: Execution) -> float | None:
    """When the chosen worker is later than in 19 of 20 tasks, in seconds; None where nothing is known of it."""
    worker = execution.decision.worker
    estimate = next((e for e in execution.decision.estimates if e.worker == worker and e.is_measured), None)
    if estimate is None:
        return None
    return estimate.latency_s * math.exp(LATE_SDS * estimate.latency_log_sd)


def _is_good(task: "asyncio.Task[Called]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result().answer is not None


def _candidates(execution: Execution, pool: Pool) -> list[Worker]:
    workflow = execution.decision.workflow
    assert isinstance(workflow, Solo)
    most = execution.task.budget.calls
    chosen, *others = [pool[worker] for worker in workflow.workers]
    workers = [chosen, *(worker for worker in others if not worker.is_careful)]
    return workers if most is None else workers[: max(1, most)]


def _may_go_on(execution: Execution) -> bool:
    """Whether a further worker may be asked: the last one failed by its own fault, and money is left."""
    called = execution.called
    if called is None or called.error is None:
        return False
    if isinstance(called.error, ProviderRejected) and not called.error.blames_worker:
        return False
    ceiling = execution.task.budget.cost_usd
    return ceiling is None or execution.cost_usd < ceiling
