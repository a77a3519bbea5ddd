"""Recording: writes a run's decision and its end to the ledger."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from ripieno.domain import Claimed, Configured, Decided, Executed, Stepped
from ripieno.errors import Abstained
from ripieno.execute.execution import Answered, Failed, Started, Suspended
from ripieno.ledger import Ledger


class Recording:
    """Records the decisions and the ends of runs.

    Args:
        observe_cost: gets the price of each ended run, in US dollars; None if it is unknown.
    """

    def __init__(self, ledger: Ledger, observe_cost: Callable[[float | None], None] | None) -> None:
        self._ledger = ledger
        self._observe_cost = observe_cost
        self._setups: set[str] = set()
        """Digests of the setups that the ledger certainly holds."""

    async def begin(self, started: Started) -> "asyncio.Future[int]":
        """Start to record the decision. The call runs concurrently, unless the ledger has a fault.

        Raises:
            Abstained: the decision is to make no call. It is recorded.
            LedgerError: the decision could not be recorded.
        """
        decision, calls = started.decision, started.recorder.calls
        claims: tuple[Claimed | Stepped | Configured, ...] = ()
        if started.journal is not None and not decision.abstains:
            claims = (started.journal.claim_new(key=started.key),)
            if calls:
                claims = (*claims, Stepped(run=decision.id, step="plan", calls=calls))
        if started.setup.digest not in self._setups:
            claims = (*claims, Configured(setup=started.setup))
        recorded = self._ledger.submit(Decided(decision=decision, task=started.task), *claims)
        recorded.add_done_callback(partial(self._remember_setup, started.setup.digest))
        if decision.abstains or self._ledger.aside.is_at_fault:
            await recorded
        if decision.abstains:
            raise Abstained(decision.reasons[0], decision=decision.id)
        return recorded

    def end(self, started: Started) -> None:
        """Record the end of a run with the next commit. A claimed run always gets an end."""
        match started.recorder.ended:
            case Answered(run=run) | Failed(run=run):
                if run.calls or started.journal is not None:
                    self._ledger.note(Executed(run=run))
                    if self._observe_cost is not None:
                        self._observe_cost(run.cost_usd)
            case Suspended() | None:
                pass

    def _remember_setup(self, setup: str, recorded: "asyncio.Future[int]") -> None:
        """Remember a recorded setup. Retrieve an exception, so that asyncio does not report it."""
        if not recorded.cancelled() and recorded.exception() is None:
            self._setups.add(setup)


@asynccontextmanager
async def recorded_beside(recorded: "asyncio.Future[int]") -> AsyncIterator[None]:
    """Run a block while a decision is recorded. The block is cancelled if the decision is refused.

    Raises:
        LedgerError: the decision could not be recorded.
    """
    scope = asyncio.timeout(None)
    is_running = True

    def end(refused: "asyncio.Future[int]") -> None:
        # the loop may have scheduled this before it was removed, and runs it after the block
        if is_running and not refused.cancelled() and refused.exception() is not None:
            scope.reschedule(refused.get_loop().time())

    try:
        async with scope:
            recorded.add_done_callback(end)
            try:
                yield
            finally:
                is_running = False
                recorded.remove_done_callback(end)
    except TimeoutError:
        if not scope.expired():
            raise
    await recorded
