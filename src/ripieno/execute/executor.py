"""Executor: Workflow to Run. Failover, budgets and streaming; what fails is recorded, not raised."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from ripieno.domain import Budget, Call, Decision, Origin, Pool, Run, Solo, Task, Worker
from ripieno.errors import BudgetExhausted, ProviderError, ProviderRejected
from ripieno.providers import Called, Caller, LiveCall, Piece

MOST_WORKERS = 3
"""Workers tried for one task: the first, and two that stand in."""


@dataclass(slots=True)
class Execution:
    """A run in the making; `run` is its record so far."""

    decision: Decision
    task: Task
    calls: list[Call] = field(default_factory=list)
    called: Called | None = None
    serving: str | None = None
    """The worker that is answering, while a stream runs."""

    @property
    def run(self) -> Run:
        """The run as it stands."""
        answer = self.called.answer if self.called is not None else None
        return Run(
            id=self.decision.id,
            task=self.task.digest,
            origin=Origin.TRAFFIC,
            calls=tuple(self.calls),
            answer=answer,
            decision=self.decision.id,
        )

    @property
    def error(self) -> ProviderError | None:
        """Why there is no answer."""
        return self.called.error if self.called is not None else None


class Executor:
    """Carries out workflows."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def execute(self, execution: Execution, pool: Pool) -> Run:
        """Carry out a whole workflow; a run without answer tells what each call met.

        Raises:
            BudgetExhausted: the budget ended before any worker answered.
        """
        try:
            async with asyncio.timeout(execution.task.budget.seconds):
                for worker in _candidates(execution, pool):
                    execution.called = await self._caller.call(worker, execution.task)
                    execution.calls.append(execution.called.call)
                    if not _may_go_on(execution):
                        break
        except TimeoutError as error:
            limit = execution.task.budget.seconds or 0.0
            raise BudgetExhausted("time (s)", spent=limit, limit=limit) from error
        return execution.run

    async def stream(self, execution: Execution, pool: Pool) -> AsyncIterator[Piece]:
        """Carry out a workflow piece by piece; before the first piece a failed worker is replaced unseen.

        Raises:
            ProviderError: every worker failed, or one broke off after its first piece.
        """
        for worker in _candidates(execution, pool):
            live = LiveCall(worker)
            has_begun = False
            execution.serving = worker.id
            try:
                async for piece in self._caller.stream(live, execution.task):
                    has_begun = True
                    yield piece
            except ProviderError:
                execution.called = live.result()
                if has_begun or not _may_go_on(execution):
                    raise
                continue
            finally:
                if live.called is not None:
                    execution.called = live.called
                    execution.calls.append(live.called.call)
            return
        assert execution.error is not None
        raise execution.error


def _candidates(execution: Execution, pool: Pool) -> list[Worker]:
    workflow = execution.decision.workflow
    assert isinstance(workflow, Solo)
    return [pool[worker] for worker in workflow.workers[: _most_calls(execution.task.budget)]]


def _most_calls(budget: Budget) -> int:
    return MOST_WORKERS if budget.calls is None else max(1, min(budget.calls, MOST_WORKERS))


def _may_go_on(execution: Execution) -> bool:
    """Whether a further worker may be asked: the last one failed by its own fault, and money is left."""
    called = execution.called
    if called is None or called.error is None:
        return False
    if isinstance(called.error, ProviderRejected) and not called.error.blames_worker:
        return False
    ceiling = execution.task.budget.cost_usd
    return ceiling is None or sum(call.cost_usd or 0.0 for call in execution.calls) < ceiling
