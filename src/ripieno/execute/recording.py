"""Recording: what the ledger keeps of a run, its decision before and its end after."""

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
        ledger: where they stand.
        observe_cost: told the price of each run that ended, in US dollars; None where it is unknown.
    """

    def __init__(self, ledger: Ledger, observe_cost: Callable[[float | None], None] | None) -> None:
        self._ledger = ledger
        self._observe_cost = observe_cost
        self._setups: set[str] = set()
        """Digests of the setups that the ledger holds for certain."""

    async def begin(self, started: Started) -> "asyncio.Future[int]":
        """Begin to record the decision; the call goes on beside it, unless the ledger was at fault just now.

        Raises:
            Abstained: the decision is to make no call; it is recorded.
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
        recorded.add_done_callback(partial(self._take_note, started.setup.digest))
        if decision.abstains or self._ledger.aside.is_at_fault:
            await recorded
        if decision.abstains:
            raise Abstained(decision.reasons[0], decision=decision.id)
        return recorded

    def end(self, started: Started) -> None:
        """Record how a run ended with the next commit; one that was claimed has an end whatever it did."""
        match started.recorder.ended:
            case Answered(run=run) | Failed(run=run):
                if run.calls or started.journal is not None:
                    self._ledger.note(Executed(run=run))
                    if self._observe_cost is not None:
                        self._observe_cost(run.cost_usd)
            case Suspended() | None:
                pass

    def _take_note(self, setup: str, recorded: "asyncio.Future[int]") -> None:
        """Note a recorded setup; look at a fault, so that it counts as seen where the call failed first."""
        if not recorded.cancelled() and recorded.exception() is None:
            self._setups.add(setup)


@asynccontextmanager
async def recorded_beside(recorded: "asyncio.Future[int]") -> AsyncIterator[None]:
    """Run a block while a decision is being recorded; it ends at once where the decision is refused.

    Raises:
        LedgerError: the decision could not be recorded.
    """
    scope = asyncio.timeout(None)

    def end(refused: "asyncio.Future[int]") -> None:
        if not refused.cancelled() and refused.exception() is not None:
            scope.reschedule(refused.get_loop().time())

    try:
        async with scope:
            recorded.add_done_callback(end)
            try:
                yield
            finally:
                recorded.remove_done_callback(end)
    except TimeoutError:
        if not scope.expired():
            raise
    await recorded
