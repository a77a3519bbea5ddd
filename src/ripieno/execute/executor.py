"""Executor: Workflow to Run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import assert_never

from ripieno.domain import Cascade, Ensemble, Plan, Pool, Solo, Turns, Verified, least_calls
from ripieno.errors import BudgetExhausted, DeadlineExceeded, NoVerdict, ProviderError, RipienoError
from ripieno.execute.execution import Execution, in_time
from ripieno.execute.journal import Journal
from ripieno.execute.modes import run_cascade, run_ensemble, run_verified
from ripieno.execute.plans import run_plan
from ripieno.execute.solo import SoloRunner
from ripieno.execute.steps import Checker, Crew, Steps
from ripieno.execute.turns import run_turns
from ripieno.providers import Called, Caller, Piece
from ripieno.providers.base import stream_whole

MOST_AHEAD = 16
"""Pieces of a stream that wait for the client, before the worker's connection is read no further."""


class Executor:
    """Carries out workflows: a single worker's at once, all others step by step.

    Args:
        caller: how workers are called.
        checker: gives what answers are checked with on the way.
        hedge_share: share of tasks for which a second worker may be asked while the first is late.
    """

    def __init__(self, caller: Caller, checker: Callable[[], Checker], *, hedge_share: float = 0.0) -> None:
        self.caller = caller
        """How workers are called."""
        self._checker = checker
        self._solo = SoloRunner(caller, hedge_share=hedge_share)

    async def execute(self, execution: Execution, pool: Pool, *, journal: Journal | None = None) -> None:
        """Carry out a whole workflow; what each call met stands in the execution.

        Args:
            execution: the run in the making.
            pool: the workers of this moment.
            journal: the record of its steps, where it is to survive this process.

        Raises:
            DeadlineExceeded: the deadline passed before there was any answer.
            BudgetExhausted: a ceiling was reached before there was any answer.
            InvalidPlan: the plan cannot be carried out by this pool.
            ApprovalPending: a human must agree first; the run goes on from there.
            ApprovalDenied: a human did not agree.
            InDoubt: a step that changes something was begun before, and its end is not known.
        """
        if not has_steps(execution, pool):
            await self._solo.execute(execution, pool)
            return
        crew = Crew(caller=self.caller, checker=self._checker(), pool=pool)
        await self._carry_out(execution, Steps(crew, execution, journal=journal))

    def stream(self, execution: Execution, pool: Pool, *, journal: Journal | None = None) -> AsyncIterator[Piece]:
        """Carry out a workflow piece by piece: of several steps, the last one is streamed where it is known to be.

        Raises:
            ProviderError: there is no answer, or it broke off after its first piece.
            RipienoError: see `execute`.
        """
        if not has_steps(execution, pool):
            return self._solo.stream(execution, pool)
        return self._stream_steps(execution, pool, journal)

    async def _stream_steps(self, execution: Execution, pool: Pool, journal: Journal | None) -> AsyncIterator[Piece]:
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        room = asyncio.Semaphore(MOST_AHEAD)

        async def give(piece: Piece) -> None:
            await room.acquire()
            pieces.put_nowait(piece)

        crew = Crew(caller=self.caller, checker=self._checker(), pool=pool)
        steps = Steps(crew, execution, journal=journal, sink=give)
        work = asyncio.create_task(self._carry_out(execution, steps))
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (next_piece := await pieces.get()) is not None:
                yield next_piece
                room.release()
            await work
            if execution.error is not None:
                raise execution.error
            if not steps.has_streamed and execution.called is not None and execution.called.answer is not None:
                execution.serving = execution.author
                async for piece in stream_whole(execution.called.answer):
                    yield piece
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError, RipienoError):
                await work

    async def _carry_out(self, execution: Execution, steps: Steps) -> None:
        """Carry out a workflow of steps; where it must end early, the best answer so far is given."""
        loop = asyncio.get_running_loop()
        try:
            _check_calls(execution)
            async with in_time(execution):
                execution.called = await _dispatch(execution, steps)
        except (BudgetExhausted, DeadlineExceeded, NoVerdict, ProviderError) as error:
            if steps.best is not None and not steps.has_streamed:
                execution.called, execution.ended_early = steps.best.called, error.message
            elif isinstance(error, ProviderError) and execution.calls:
                execution.called = Called(call=execution.calls[-1], answer=None, error=error)
            else:
                raise
        finally:
            execution.wall_s = loop.time() - execution.began


def has_steps(execution: Execution, pool: Pool) -> bool:
    """Whether a run is made step by step: a single worker's only where a call of it is more than a question."""
    workflow = execution.decision.workflow
    return not isinstance(workflow, Solo) or pool[workflow.worker].is_careful


def _check_calls(execution: Execution) -> None:
    """Refuse a workflow that the budget's calls can never carry, before anybody is called."""
    least, most = least_calls(execution.decision.workflow), execution.task.budget.calls
    if most is not None and least > most and not execution.calls:
        raise BudgetExhausted("calls", spent=least, limit=most)


async def _dispatch(execution: Execution, steps: Steps) -> Called:
    workflow = execution.decision.workflow
    match workflow:
        case Solo():
            return await steps.ask("1", workflow.workers, execution.task, is_last=True)
        case Cascade():
            return await run_cascade(workflow, steps)
        case Verified():
            return await run_verified(workflow, steps)
        case Ensemble():
            return await run_ensemble(workflow, steps)
        case Plan():
            return await run_plan(workflow, steps)
        case Turns():
            assert execution.director is not None, "who opened the run gives it its director"
            return await run_turns(workflow, steps, execution.director)
        case _:
            assert_never(workflow)
