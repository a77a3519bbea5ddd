"""Budget: the remaining ceilings of a run of several calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ripieno.domain import Account, Bound, Budget, Call, Task, Worker, bound_call, cap_output
from ripieno.errors import BudgetExhausted, UnknownPrice
from ripieno.execute.execution import CallRecorder
from ripieno.providers import Caller, CallResult
from ripieno.providers.caller import ATTEMPTS


@dataclass(slots=True)
class Hold:
    """Money that is reserved while one call runs."""

    task: Task
    """The task to send. Its answer length is limited to what the hold can pay."""
    usd: float = 0.0
    call: Call | None = None
    is_unused: bool = False
    """Whether no call was started. Then nothing is spent."""


class RunBudget:
    """Enforces the ceilings of one run. Each call reserves its largest cost before it starts, and settles after."""

    def __init__(self, budget: Budget, account: Account | None, recorder: CallRecorder) -> None:
        self._budget = budget
        self._account = account
        self._recorder = recorder
        self._begun = len(recorder.calls) + len(recorder.beside)
        self._reserved_usd = 0.0
        self.abandoned: Call | None = None
        """The latest cancelled call."""
        self._unpriced_usd = 0.0
        """Reserved money of calls that ended without a known cost. It counts as spent."""

    @asynccontextmanager
    async def reserve(self, worker: Worker, task: Task) -> AsyncIterator[Hold]:
        """Reserve the largest cost of one call while it runs. The caller puts the finished call into the hold.

        Raises:
            BudgetExhausted: a ceiling leaves no room for the call, which must not be made.
            UnknownPrice: there is a money ceiling, and the worker's price is unknown.
        """
        budget, recorder = self._budget, self._recorder
        tokens = sum(call.tokens for call in (*recorder.calls, *recorder.beside))
        if budget.calls is not None and self._begun >= budget.calls:
            raise BudgetExhausted("calls", spent=self._begun, limit=budget.calls)
        if budget.tokens is not None and tokens >= budget.tokens:
            raise BudgetExhausted("tokens", spent=tokens, limit=budget.tokens)
        hold = await self._hold(worker, task)
        self._begun += 1
        try:
            yield hold
        finally:
            self._settle(hold)

    async def call(self, caller: Caller, worker: Worker, task: Task, *, attempts: int = ATTEMPTS) -> CallResult:
        """Call a worker within the budget. A cancelled call counts as a call whose prompt was sent.

        Raises:
            BudgetExhausted: see `reserve`.
            UnknownPrice: see `reserve`.
        """
        async with self.reserve(worker, task) as hold:
            began = asyncio.get_running_loop().time()
            try:
                result = await caller.call(worker, hold.task, attempts=attempts)
            except asyncio.CancelledError:
                waited = asyncio.get_running_loop().time() - began
                self.abandoned = hold.call = caller.abandon(worker, hold.task, latency_s=waited).call
                raise
            hold.call = result.call
        return result

    async def _hold(self, worker: Worker, task: Task) -> Hold:
        account, ceiling = self._account, self._budget.cost_usd
        has_account = account is not None and account.has_budget
        if ceiling is None and not has_account:
            return Hold(task)
        bound = bound_call(worker, task)
        if bound is None:
            raise UnknownPrice(worker.id)
        most = bound.most_usd
        if ceiling is not None:
            committed = self._recorder.cost_usd + self._unpriced_usd + self._reserved_usd
            most = min(most, ceiling - committed)
            if most < bound.least_usd:
                raise BudgetExhausted("money (USD)", spent=committed, limit=ceiling)
        self._reserved_usd += most  # before any await, so that concurrent calls see it
        granted = 0.0
        try:
            granted = await account.reserve(most, least_usd=bound.least_usd) if account is not None else most
        finally:
            self._reserved_usd += granted - most
        return Hold(self._limit(worker, task, bound, granted), granted)

    def _limit(self, worker: Worker, task: Task, bound: Bound, usd: float) -> Task:
        """Cap the task's answer at what is paid for, if that is shorter or nothing else limits it."""
        tokens = bound.afford(usd)
        if bound.is_limited and tokens >= bound.output_tokens:
            return task
        self._recorder.limited_tokens = tokens
        return cap_output(worker, task, tokens)

    def _settle(self, hold: Hold) -> None:
        self._reserved_usd -= hold.usd
        cost = hold.call.cost_usd if hold.call is not None else None
        if hold.is_unused:
            cost = 0.0
        if cost is None:
            self._unpriced_usd += hold.usd
        if self._account is not None and hold.usd:
            self._account.settle(hold.usd, cost_usd=hold.usd if cost is None else cost)
