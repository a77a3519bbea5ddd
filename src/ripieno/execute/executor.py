"""Executor: Workflow to Run. Failover, budgets and streaming; what fails is recorded, not raised."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from ripieno.domain import Call, Decision, Origin, Pool, Run, Solo, Task, Worker
from ripieno.errors import BudgetExhausted, DeadlineExceeded, ProviderError, ProviderRejected
from ripieno.providers import Called, Caller, LiveCall, Piece


@dataclass(slots=True)
class Execution:
    """A run in the making; `run` is its record so far."""

    decision: Decision
    task: Task
    digest: str
    """Of the task."""
    key: str | None = None
    """Id of the virtual key that pays."""
    calls: list[Call] = field(default_factory=list)
    called: Called | None = None
    serving: str | None = None
    """The worker that is answering, while a stream runs."""
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """The loop's time when the decision was there."""

    @property
    def run(self) -> Run:
        """The run as it stands, as it is recorded."""
        answer = self.called.answer if self.called is not None else None
        if answer is not None and answer.wire:
            answer = replace(answer, wire=b"")
        return Run(
            id=self.decision.id,
            task=self.digest,
            origin=Origin.TRAFFIC,
            calls=tuple(self.calls),
            answer=answer,
            decision=self.decision.id,
            key=self.key,
        )

    @property
    def error(self) -> ProviderError | None:
        """Why there is no answer."""
        return self.called.error if self.called is not None else None


class Executor:
    """Carries out workflows."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def execute(self, execution: Execution, pool: Pool) -> None:
        """Carry out a whole workflow; what each call met stands in the execution, and nothing else is told.

        Raises:
            DeadlineExceeded: the deadline passed before any worker answered.
            BudgetExhausted: the budget's time ended before.
        """
        if _find_limit(execution) is None:
            await self._try_each(execution, pool)
            return
        async with _in_time(execution):
            await self._try_each(execution, pool)

    async def _try_each(self, execution: Execution, pool: Pool) -> None:
        for worker in _candidates(execution, pool):
            execution.called = await self._caller.call(worker, execution.task)
            execution.calls.append(execution.called.call)
            if not _may_go_on(execution):
                return

    async def stream(self, execution: Execution, pool: Pool) -> AsyncIterator[Piece]:
        """Carry out a workflow piece by piece; before the first piece a failed worker is replaced unseen.

        Raises:
            ProviderError: every worker failed, or one broke off after its first piece.
            DeadlineExceeded: the deadline passed before the first piece.
        """
        for worker in _candidates(execution, pool):
            live = LiveCall(worker)
            has_begun = False
            execution.serving = worker.id
            pieces = self._caller.stream(live, execution.task)
            try:
                async with _in_time(execution):
                    first = await anext(pieces, None)
                if first is not None:
                    has_begun = True
                    yield first
                    async for piece in pieces:
                        yield piece
            except ProviderError:
                execution.called = live.result()
                if has_begun or not _may_go_on(execution):
                    raise
                continue
            finally:
                await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
                if live.called is not None:
                    execution.called = live.called
                    execution.calls.append(live.called.call)
            return
        assert execution.error is not None
        raise execution.error


def _find_limit(execution: Execution) -> float | None:
    """Seconds that the task may take from its arrival on."""
    deadline, seconds = execution.task.objective.deadline_s, execution.task.budget.seconds
    if deadline is None or seconds is None:
        return seconds if deadline is None else deadline
    return min(deadline, seconds)


@asynccontextmanager
async def _in_time(execution: Execution) -> AsyncIterator[None]:
    """Hold the deadline, counted from the task's arrival, and the budget's time."""
    deadline, limit = execution.task.objective.deadline_s, _find_limit(execution)
    if limit is None:
        yield
        return
    try:
        async with asyncio.timeout_at(execution.began + limit - execution.decision.decide_s):
            yield
    except TimeoutError as error:
        if limit == deadline:
            raise DeadlineExceeded(limit) from error
        raise BudgetExhausted("time (s)", spent=limit, limit=limit) from error


def _candidates(execution: Execution, pool: Pool) -> list[Worker]:
    workflow = execution.decision.workflow
    assert isinstance(workflow, Solo)
    most = execution.task.budget.calls
    workers = workflow.workers if most is None else workflow.workers[: max(1, most)]
    return [pool[worker] for worker in workers]


def _may_go_on(execution: Execution) -> bool:
    """Whether a further worker may be asked: the last one failed by its own fault, and money is left."""
    called = execution.called
    if called is None or called.error is None:
        return False
    if isinstance(called.error, ProviderRejected) and not called.error.blames_worker:
        return False
    ceiling = execution.task.budget.cost_usd
    return ceiling is None or sum(call.cost_usd or 0.0 for call in execution.calls) < ceiling
