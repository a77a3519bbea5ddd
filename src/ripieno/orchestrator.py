"""The whole path, once: analyze, mask, estimate, decide, execute, record."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from uuid import uuid4

from ripieno.analyze import Analyzer
from ripieno.domain import Clock, Decided, Decision, Executed, Features, Objective, Pool, Run, Task
from ripieno.errors import Abstained, RipienoError
from ripieno.execute import Execution, Executor
from ripieno.ledger import Ledger
from ripieno.providers import Piece
from ripieno.route import Arrival, ConditionsSource, Pacer, Router

LOTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Brain:
    """What decides at this moment; swapped whole when the pool or the checkpoint changes."""

    pool: Pool
    router: Router
    canary: Router | None = None
    """What decides a share of the tasks before it is promoted or rolled back."""
    canary_share: float = 0.0

    def pick(self, arrival: Arrival) -> Router:
        """The router of one task; the seed alone chooses, so that a replay chooses alike."""
        is_canary = self.canary is not None and arrival.seed % LOTS < self.canary_share * LOTS
        return self.canary if is_canary and self.canary is not None else self.router


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the orchestrator is made of."""

    analyzer: Analyzer
    executor: Executor
    ledger: Ledger
    conditions: ConditionsSource
    clock: Clock
    pacer: Pacer | None = None
    """Holds the mean price of a task, where a budget is set."""


class Orchestrator:
    """Carries tasks from arrival to a recorded run.

    Args:
        parts: the stages and the record.
        brain: gives the pool and router of this moment; one task sees one of them, whole.
    """

    def __init__(self, parts: Parts, brain: Callable[[], Brain]) -> None:
        self._parts = parts
        self._brain = brain

    async def decide(self, task: Task, *, brain: Brain | None = None, arrival: Arrival | None = None) -> Decision:
        """Decide one task; nothing is called and nothing recorded.

        Raises:
            NoEligibleWorker: nobody may take the task.
        """
        brain = brain or self._brain()
        arrival = arrival or make_arrival(self._parts.clock)
        features = await self._parts.analyzer.analyze(task)
        task = replace(task, objective=self._complete(task.objective, features))
        router = brain.pick(arrival)
        return router.decide(task, features, brain.pool, self._parts.conditions(), arrival=arrival)

    def _complete(self, objective: Objective, features: Features) -> Objective:
        """The caller's objective, with what analysis found and what the budget says."""
        pacer = self._parts.pacer
        return replace(
            objective,
            mission_criticality=features.mission_criticality,
            time_criticality=features.time_criticality,
            money_weight=pacer.money_weight if pacer is not None else 0.0,
        )

    async def handle(self, task: Task) -> tuple[Decision, Run]:
        """Carry one task to a recorded run.

        Raises:
            NoEligibleWorker: nobody may take the task.
            Abstained: no answer was expected to be worth asking for; the decision is recorded.
            ProviderError: every worker that was tried failed; the run is recorded all the same.
            LedgerError: the decision could not be recorded; nothing was called.
        """
        brain = self._brain()
        decision = await self.decide(task, brain=brain)
        await self._record_decided(decision, task)
        execution = Execution(decision=decision, task=task)
        try:
            run = await self._parts.executor.execute(execution, brain.pool)
        finally:
            await self._record(execution)
        if run.answer is None:
            raise execution.error or RipienoError(f"decision {decision.id} led to no call")
        return decision, run

    async def stream(self, task: Task) -> tuple[Decision, Execution, AsyncIterator[Piece]]:
        """Decide and record at once; the answer comes piece by piece, and the run is recorded when it ends."""
        brain = self._brain()
        decision = await self.decide(task, brain=brain)
        await self._record_decided(decision, task)
        execution = Execution(decision=decision, task=task)
        return decision, execution, self._stream_recorded(execution, brain.pool)

    async def _stream_recorded(self, execution: Execution, pool: Pool) -> AsyncIterator[Piece]:
        try:
            async for piece in self._parts.executor.stream(execution, pool):
                yield piece
        finally:
            await self._record(execution)

    async def _record_decided(self, decision: Decision, task: Task) -> None:
        await self._parts.ledger.append(Decided(decision=decision, task=task))
        if decision.abstains:
            raise Abstained(decision.reasons[0], decision=decision.id)

    async def _record(self, execution: Execution) -> None:
        if execution.calls:
            await self._parts.ledger.append(Executed(run=execution.run))
            if self._parts.pacer is not None:
                self._parts.pacer.observe(execution.run.cost_usd or 0.0)


def make_arrival(clock: Clock) -> Arrival:
    """Name a task that has just arrived; the seed follows from the name, so that a replay has it."""
    name = uuid4().hex
    return Arrival(id=name, seed=derive_seed(name), started=clock.monotonic())


def derive_seed(name: str) -> int:
    """Seed of a decision, from its id: 53 bits, so that JSON readers keep it whole."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 11
