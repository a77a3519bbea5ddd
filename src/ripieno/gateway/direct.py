"""Direct calls: requests that one named worker takes without a decision, metered and recorded."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from ripieno.app import Installation
from ripieno.domain import Account, Answer, Budget, Call, Executed, Objective, Origin, Run, Task, Worker
from ripieno.errors import Forbidden, ProviderError, RipienoError
from ripieno.gateway.facts import Facts
from ripieno.gateway.keyring import Keyring, list_allowed_workers
from ripieno.gateway.models import Models
from ripieno.gateway.objective import UnknownModel
from ripieno.gateway.provenance import make_cost_header
from ripieno.providers.caller import is_unbilled

Reply = TypeVar("Reply")


class DirectCalls:
    """Finds the worker that a request names, and meters its call."""

    def __init__(self, app: Installation, keyring: Keyring, models: Models) -> None:
        self._app = app
        self._keyring = keyring
        self._models = models

    def resolve(self, model: str) -> str:
        """Return the first name that an alias stands for, or the name itself."""
        names = self._models.read()[1].resolve(model)
        return model if names is None else names[0]

    def find_worker(self, name: str, facts: Facts) -> Worker:
        """Find the worker of a name.

        Raises:
            UnknownModel: there is no such worker.
            Forbidden: the key may not use it, or its calls have effects or need approval.
        """
        pool, grant = self._app.runtime.pool, facts.grant
        if name not in pool:
            raise UnknownModel(name, list_allowed_workers(grant, pool))
        objective, _ = self._keyring.restrict(grant, Objective(workers=(name,)), Budget())
        worker = pool[name]
        if worker.is_restricted:
            raise Forbidden(f"{name!r} is not served here: its calls have effects or need approval")
        if worker.privacy.reach > objective.privacy.reach:
            raise Forbidden(f"{name!r} is {worker.privacy}, and the key's tasks may go to {objective.privacy} workers")
        return worker

    @asynccontextmanager
    async def meter(self, facts: Facts, run: str, task: Task) -> AsyncIterator["Meter"]:
        """Admit a request, and count what it used once the block ends.

        Args:
            facts: who sends the request; `record` names the worker there.
            run: id of the run that pays.
            task: the task that the ledger records, without the content.

        Raises:
            LedgerError: the ledger is damaged.
            RateLimited: the key sends too much in a minute.
            BudgetExhausted: the key's money is spent.
        """
        self._app.ledger.damage.require_none()
        await self._keyring.admit(facts.grant)
        meter = Meter(self._app, facts, task, run, self._keyring.open(facts.grant, run))
        try:
            yield meter
        finally:
            if meter.account is not None:
                meter.account.close(cost_usd=meter.cost_usd, is_recorded=meter.is_recorded or meter.cost_usd is None)
            await self._keyring.leave(facts.grant, cost_usd=meter.cost_usd or 0.0, tokens=meter.tokens)


@dataclass(slots=True)
class Meter:
    """What one request uses."""

    _app: Installation
    _facts: Facts
    _task: Task
    _run: str
    account: Account | None
    """The account that pays; None if no key pays."""
    cost_usd: float | None = 0.0
    """Zero without a call; unknown from the start of a call until `record`."""
    tokens: int = 0
    is_recorded: bool = False

    async def send(self, call: Awaitable[Reply]) -> tuple[Reply, float]:
        """Wait for a call. Returns the reply and its latency in seconds.

        Raises:
            InvalidTask: the worker takes no such requests.
            ProviderError: the worker failed.
        """
        began = self._app.clock.monotonic()
        self.cost_usd = None
        try:
            reply = await call
        except RipienoError as error:
            if not isinstance(error, ProviderError) or is_unbilled(error):
                self.cost_usd = 0.0
            raise
        return reply, self._app.clock.monotonic() - began

    def record(self, call: Call) -> dict[str, str]:
        """Record a call in the ledger. Returns the headers that name its worker and its cost."""
        self.tokens, self.cost_usd, self.is_recorded = call.tokens, call.cost_usd, True
        self._facts.worker = call.worker
        run = Run(
            id=self._run,
            task=self._task.digest,
            origin=Origin.TRAFFIC,
            calls=(call,),
            answer=Answer(text=""),
            key=self._facts.grant.id,
        )
        self._app.ledger.note(Executed(run=run, task=self._task))
        return {"x-ripieno-worker": call.worker} | make_cost_header(call.cost_usd)
