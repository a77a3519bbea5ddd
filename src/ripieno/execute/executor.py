"""Executor: Workflow to Run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import assert_never

from ripieno.domain import Cascade, Ensemble, Plan, Solo, Turns, Verified, least_calls
from ripieno.errors import BudgetExhausted, ConfigError, DeadlineExceeded, NoVerdict, ProviderError, RipienoError
from ripieno.execute.execution import Answered, Ending, Started, in_time
from ripieno.execute.plans import run_plan
from ripieno.execute.solo import SoloRunner
from ripieno.execute.steps import Checker, Steps
from ripieno.execute.turns import run_turns
from ripieno.execute.workflows import run_cascade, run_ensemble, run_verified
from ripieno.providers import CallAnswered, Caller, Piece
from ripieno.providers.base import stream_whole

MOST_AHEAD = 16
"""Pieces of a stream that wait for the client before the executor stops reading from the worker."""


class Executor:
    """Runs workflows: a single worker directly, all others step by step.

    Args:
        hedge_share: largest share of tasks that call a second worker while the first is late.
        resumes: whether another worker continues the stream of one that died.
    """

    def __init__(
        self, caller: Caller, checker: Callable[[], Checker], *, hedge_share: float = 0.0, resumes: bool = False
    ) -> None:
        self.caller = caller
        self._checker = checker
        self._solo = SoloRunner(caller, hedge_share=hedge_share, resumes=resumes)

    async def execute(self, started: Started) -> Answered:
        """Run a whole workflow. The run records its end, whatever is raised.

        Raises:
            ProviderError: no called worker answered.
            DeadlineExceeded: the deadline passed before any answer.
            BudgetExhausted: a ceiling was reached before any answer.
            InvalidPlan: this pool cannot run the plan.
            ApprovalPending: a human must approve first. The run continues from there.
            ApprovalDenied: a human did not approve.
            InDoubt: a step with effects was started before, and its end is unknown.
        """
        with Ending(started):
            if (solo := started.solo) is not None:
                return started.end(await self._solo.ask(started, solo))
            return await _run_steps(started, Steps(self.caller, self._checker(), started))

    def stream(self, started: Started) -> AsyncIterator[Piece]:
        """Run a workflow piece by piece. Of several steps, the last one is streamed if it is known in advance.

        Raises:
            RipienoError: there is no answer, or it failed after its first piece. See `execute`.
        """
        solo = started.solo
        return self._stream_steps(started) if solo is None else self._solo.stream(started, solo)

    async def _stream_steps(self, started: Started) -> AsyncIterator[Piece]:
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        room = asyncio.Semaphore(MOST_AHEAD)

        async def give(piece: Piece) -> None:
            await room.acquire()
            pieces.put_nowait(piece)

        with Ending(started):
            steps = Steps(self.caller, self._checker(), started, sink=give)
            work = asyncio.create_task(_run_steps(started, steps))
            work.add_done_callback(lambda _: pieces.put_nowait(None))
            try:
                while (next_piece := await pieces.get()) is not None:
                    yield next_piece
                    room.release()
                answered = await work
                if not steps.has_streamed:
                    started.recorder.serving = answered.run.worker
                    async for piece in stream_whole(answered.answer):
                        yield piece
            finally:
                work.cancel()
                with suppress(asyncio.CancelledError, RipienoError):
                    await work


async def _run_steps(started: Started, steps: Steps) -> Answered:
    """Run a workflow of steps. If it must end early, return the best answer so far."""
    try:
        _check_calls(started)
        async with in_time(started):
            result = await _dispatch(started, steps)
    except (BudgetExhausted, DeadlineExceeded, NoVerdict, ProviderError) as error:
        if steps.best is None or steps.has_streamed:
            raise
        return started.end(steps.best.result, ended_early=error.message)
    return started.end(result)


def _check_calls(started: Started) -> None:
    """Refuse a workflow that needs more calls than the budget allows, before any call."""
    least, most = least_calls(started.decision.workflow), started.task.budget.calls
    if most is not None and least > most and not started.recorder.calls:
        raise BudgetExhausted("calls", spent=least, limit=most)


async def _dispatch(started: Started, steps: Steps) -> CallAnswered:
    workflow = started.decision.workflow
    match workflow:
        case Solo():
            return await steps.ask("1", workflow.workers, started.task, is_last=True)
        case Cascade():
            return await run_cascade(workflow, steps)
        case Verified():
            return await run_verified(workflow, steps)
        case Ensemble():
            return await run_ensemble(workflow, steps)
        case Plan():
            return await run_plan(workflow, steps)
        case Turns():
            if started.director is None:
                raise ConfigError(
                    f"run {started.decision.id} has no director for its turns", hint="use --workflow plan"
                )
            return await run_turns(workflow, steps, started.director)
        case _:
            assert_never(workflow)
