"""The whole path, once: analyze, mask, estimate, decide, execute, record."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ripieno.analyze import Analyzer
from ripieno.conductor import Brief, Conductor, Directors, Roster, Written
from ripieno.domain import (
    Account,
    Arrival,
    Call,
    Claimed,
    Clock,
    Configured,
    Decided,
    Decision,
    Executed,
    Features,
    Mode,
    Objective,
    Pool,
    RoutingSetup,
    Run,
    Stepped,
    Task,
    Turns,
    Worker,
    WorkerId,
    names_worker,
)
from ripieno.domain.grader import Check
from ripieno.errors import (
    Abstained,
    ApprovalPending,
    BudgetExhausted,
    ConfigError,
    RipienoError,
    UnknownPrice,
)
from ripieno.execute import Execution, Executor, Journal, Journals, Unfinished, has_steps
from ripieno.execute.budget import Purse
from ripieno.ledger import Ledger
from ripieno.memory.harness import Harness
from ripieno.memory.shorten import Shortener
from ripieno.providers import Called, Piece
from ripieno.route import ConditionsSource, Pacer, Router
from ripieno.route.router import require_eligible

LOTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingState:
    """What decides at this moment; swapped whole when the pool or the checkpoint changes."""

    router: Router
    canary: Router | None = None
    """What decides a share of the tasks before it is promoted or rolled back."""
    canary_share: float = 0.0

    @property
    def pool(self) -> Pool:
        """The pool in force."""
        return self.router.setup.pool

    def pick(self, arrival: Arrival) -> Router:
        """Return the router of one task; the seed alone chooses. The decision records its predictor."""
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
    journals: Journals | None = None
    """The record of runs of several steps; None lets them end with this process."""
    conductors: Mapping[Mode, Conductor] = field(default_factory=dict)
    """Who writes the plans of each mode that needs one."""
    directors: Directors | None = None
    """Who chooses the steps of runs of turns."""
    shortener: Shortener | None = None
    """Makes older turns of long conversations short."""
    harness: Callable[[], Harness] | None = None
    """Gives the memory's harness; it is opened when a request has a memory."""
    pacer: Pacer | None = None
    """Holds the mean price of a task, where a budget is set."""


class Orchestrator:
    """Carries tasks from arrival to a recorded run.

    Args:
        parts: the stages and the record.
        brain: gives the pool and router of this moment; one task sees one of them, whole.
    """

    def __init__(self, parts: Parts, brain: Callable[[], RoutingState]) -> None:
        self._parts = parts
        self._brain = brain
        self._setups: dict[str, RoutingSetup | None] = {}
        """Setups that decided, by digest; None once the ledger holds it."""

    async def decide(
        self, task: Task, *, brain: RoutingState | None = None, arrival: Arrival | None = None
    ) -> Decision:
        """Decide one task; nothing is called and nothing recorded.

        Raises:
            NoEligibleWorker: nobody may take the task.
        """
        brain = brain or self._brain()
        arrival = arrival or make_arrival(self._parts.clock)
        if names_worker(task, arrival.workflow):
            features = await self._parts.analyzer.survey(task)
        else:
            features = await self._parts.analyzer.analyze(task)
            task = replace(task, objective=self._complete(task.objective, features))
        router = brain.pick(arrival)
        self._setups.setdefault(router.setup.digest, router.setup)
        decision = router.decide(router.gather(task, features, self._parts.conditions(), arrival=arrival))
        return replace(decision, decide_s=self._parts.clock.monotonic() - arrival.started)

    def _complete(self, objective: Objective, features: Features) -> Objective:
        """The caller's objective, with what analysis found and what the budget says."""
        pacer = self._parts.pacer
        return replace(
            objective,
            mission_criticality=features.mission_criticality,
            time_criticality=features.time_criticality,
            money_weight=pacer.money_weight if pacer is not None else 0.0,
        )

    async def handle(self, task: Task, *, arrival: Arrival | None = None) -> tuple[Decision, Run]:
        """Carry one task to a recorded run; see `carry`."""
        execution = await self.carry(task, arrival=arrival)
        return execution.decision, execution.run

    async def carry(
        self,
        task: Task,
        *,
        arrival: Arrival | None = None,
        follow: Callable[[Execution], None] | None = None,
    ) -> Execution:
        """Carry one task to an answer; its decision is durable when it is given, and its run goes with the next commit.

        Args:
            task: what is asked.
            arrival: when and under what name it came; made here if not given.
            follow: told the execution before anybody is called, for who wants to know what failed ones have cost.

        Raises:
            NoEligibleWorker: nobody may take the task.
            Abstained: no answer was expected to be worth asking for; the decision is recorded.
            ProviderError: every worker that was tried failed; the run is recorded all the same.
            DeadlineExceeded: none answered in time.
            LedgerError: the decision could not be recorded; no answer is given without it.
        """
        arrival = arrival or make_arrival(self._parts.clock)
        execution, pool = await self._begin(task, arrival)
        if follow is not None:
            follow(execution)
        journal = self._open_journal(execution, pool)
        recorded = await self._record_decided(execution, journal)
        async with recorded_beside(recorded):
            await self._execute(execution, pool, journal)
        if execution.called is None or execution.called.answer is None:
            raise execution.error or RipienoError(f"decision {execution.decision.id} led to no call")
        await self._remember(execution, arrival)
        return execution

    async def _remember(self, execution: Execution, arrival: Arrival) -> None:
        """Keep what was asked and answered, where the request has a memory."""
        answer = execution.called.answer if execution.called is not None else None
        if self._parts.harness is None or arrival.memory is None or answer is None:
            return
        await self._parts.harness().after(
            execution.task,
            answer.text,
            arrival.memory,
            run=execution.decision.id,
            thread=arrival.thread or execution.decision.id,
        )

    async def resume(self, found: Unfinished) -> Execution | None:
        """Go on with a run that nobody has in hand; None where another process was faster.

        Raises:
            RipienoError: as `carry`; the end of the run is recorded.
        """
        assert self._parts.journals is not None
        decided = await asyncio.to_thread(self._parts.ledger.find_decided, found.claim.run)
        journal = await self._parts.journals.take_over(found)
        if journal is None:
            return None
        execution = Execution(decision=decided.decision, task=decided.task, key=found.claim.key, is_claimed=True)
        pool = self._brain().pool
        await self._direct(execution, pool)
        await self._execute(execution, pool, journal)
        if execution.called is None or execution.called.answer is None:
            raise execution.error or RipienoError(f"decision {execution.decision.id} led to no call")
        return execution

    async def _execute(self, execution: Execution, pool: Pool, journal: Journal | None) -> None:
        has_ended = True
        try:
            await self._parts.executor.execute(execution, pool, journal=journal)
        except ApprovalPending:
            has_ended = False
            raise
        finally:
            if has_ended:
                self._note(execution)

    def _open_journal(self, execution: Execution, pool: Pool) -> Journal | None:
        journals = self._parts.journals
        if journals is None or not has_steps(execution, pool):
            return None
        return journals.open(execution.decision.id)

    async def stream(self, task: Task, *, arrival: Arrival | None = None) -> tuple[Execution, AsyncIterator[Piece]]:
        """Decide; the answer comes piece by piece, the first one not before the decision is durable."""
        arrival = arrival or make_arrival(self._parts.clock)
        execution, pool = await self._begin(task, arrival)
        journal = self._open_journal(execution, pool)
        recorded = await self._record_decided(execution, journal)
        pieces = self._parts.executor.stream(execution, pool, journal=journal)
        if arrival.memory is not None:
            pieces = self._stream_remembered(execution, pieces, arrival)
        return execution, self._stream_recorded(execution, pieces, recorded)

    async def _stream_remembered(
        self, execution: Execution, pieces: AsyncIterator[Piece], arrival: Arrival
    ) -> AsyncIterator[Piece]:
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
        await self._remember(execution, arrival)

    async def _begin(self, task: Task, arrival: Arrival) -> tuple[Execution, Pool]:
        """Decide one task on the pool of this moment."""
        brain = self._brain()
        notes: list[str] = []
        if self._parts.shortener is not None:
            task, done = await self._parts.shortener.shorten(task, write=partial(self._write, arrival, task.objective))
            notes += [done.tell()] if done is not None else []
        harness, read = self._parts.harness, None
        if harness is not None and arrival.memory is not None:
            task, read = await harness().before(task, arrival.memory)
        decision = await self.decide(task, brain=brain, arrival=arrival)
        if read is not None:
            notes.append(f"memory is {read.status.value}: {len(read.items)} items are shown")
        if notes:
            project = arrival.memory.project if arrival.memory is not None else ""
            decision = replace(decision, memory=read, project=project, reasons=(*decision.reasons, *notes))
        execution = Execution(decision=decision, task=task, key=arrival.key, account=arrival.account)
        conductor = self._parts.conductors.get(task.objective.mode or Mode.SOLO)
        if conductor is not None and not decision.abstains and arrival.workflow is None:
            await self._plan(execution, brain.pool, conductor)
        await self._direct(execution, brain.pool)
        return execution, brain.pool

    async def _write(self, arrival: Arrival, objective: Objective, wanted: Task) -> str:
        """Have prose written for a compaction: a task of its own that travels no further, at the same key's cost."""
        assert self._parts.shortener is not None
        task = replace(wanted, objective=Objective(privacy=objective.privacy, allowed=objective.allowed))
        return await self.write(task, self._parts.shortener.worker, key=arrival.key, account=arrival.account)

    async def write(
        self, task: Task, worker: str | None, *, key: str | None = None, account: Account | None = None
    ) -> str:
        """Have a task of our own done, by a configured worker or by the one the router chooses; gives the text.

        A worker whose calls have effects or need approval never does it: no request has named it.

        Args:
            task: what is asked.
            worker: its id; None or `auto` lets the router choose.
            key: id of the virtual key that pays.
            account: of the run for which the text is written; this run opens one beside it.

        Raises:
            RipienoError: no worker did it.
        """
        if worker not in (None, "auto"):
            task = replace(task, objective=replace(task.objective, allowed=(str(worker),)))
        arrival = make_arrival(self._parts.clock, key=key)
        if account is None:
            _, run = await self.handle(task, arrival=arrival)
            return run.answer.text if run.answer is not None else ""
        own, begun = account.open(arrival.id), list[Execution]()
        try:
            execution = await self.carry(task, arrival=replace(arrival, account=own), follow=begun.append)
        finally:
            spent = sum(each.cost_usd for each in begun)
            own.close(cost_usd=spent, is_recorded=any(each.calls for each in begun))
        return execution.run.answer.text if execution.run.answer is not None else ""

    async def plan(self, task: Task) -> tuple[Decision, tuple[Call, ...]]:
        """Decide one task and have its plan written; nobody carries it out, and nothing is recorded.

        Returns:
            The decision, whose workflow is the plan where one could be written, and the calls that writing took.
        """
        execution, _ = await self._begin(task, make_arrival(self._parts.clock))
        return execution.decision, tuple(execution.calls)

    async def _plan(self, execution: Execution, pool: Pool, conductor: Conductor) -> None:
        """Have a plan written in place of the chosen worker, who stays where none comes out."""
        decision, made = execution.decision, list[Call]()
        purse = Purse(execution)

        async def call(worker: Worker, asked: Task) -> Called:
            called = await purse.call(self._parts.executor.caller, worker, asked)
            made.append(called.call)
            return called

        try:
            written = await conductor.write(replace(await self._brief(execution, pool), call=call))
        except (BudgetExhausted, UnknownPrice) as error:
            written = Written(plan=None, calls=tuple(made), fault=error.message)
        execution.calls += [replace(each, step="plan") for each in written.calls]
        if written.plan is None:
            reason = f"no plan came out, {decision.worker} answers alone: {written.fault}"
            execution.decision = replace(decision, reasons=(reason, *decision.reasons))
            return
        require_eligible(written.plan, decision.mask)
        reason = f"{written.plan.author} wrote a plan of {len(written.plan.steps)} steps"
        execution.decision = replace(decision, workflow=written.plan, reasons=(reason, *decision.reasons))

    async def _direct(self, execution: Execution, pool: Pool) -> None:
        """Give a run of turns its director."""
        decision = execution.decision
        if not isinstance(decision.workflow, Turns):
            return
        directors = self._parts.directors
        if directors is None:
            raise ConfigError("nobody here can choose turns", key="conductor.head", hint="use --workflow plan")
        execution.director = await directors.direct(await self._brief(execution, pool))
        execution.decision = replace(decision, workflow=replace(decision.workflow, author=directors.version))

    async def _brief(self, execution: Execution, pool: Pool) -> Brief:
        decision = execution.decision
        estimates = {estimate.worker: estimate for estimate in decision.estimates}
        models = [worker for worker in decision.mask.eligible if not pool[worker].is_tool]
        return Brief(
            task=execution.task,
            features=await self._parts.analyzer.analyze(execution.task),
            roster=Roster.draw(pool, decision.mask.eligible, np.random.default_rng(decision.seed)),
            estimates=estimates,
            author=max(models, key=lambda worker: estimates[worker].quality, default=None),
        )

    async def _stream_recorded(
        self,
        execution: Execution,
        pieces: AsyncIterator[Piece],
        recorded: "asyncio.Future[int]",
    ) -> AsyncIterator[Piece]:
        has_ended = True
        try:
            async with recorded_beside(recorded):
                piece = await anext(pieces, None)
            while piece is not None:
                yield piece
                piece = await anext(pieces, None)
        except ApprovalPending:
            has_ended = False
            raise
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
            if has_ended:
                self._note(execution)

    async def _record_decided(self, execution: Execution, journal: Journal | None) -> "asyncio.Future[int]":
        """Begin to record the decision; the call goes on beside it, unless the ledger was at fault just now."""
        ledger, decision = self._parts.ledger, execution.decision
        claims: tuple[Claimed | Stepped | Configured, ...] = ()
        if journal is not None and self._parts.journals is not None and not decision.abstains:
            claims = (self._parts.journals.claim_new(decision.id, key=execution.key),)
            if execution.calls:
                claims = (*claims, Stepped(run=decision.id, step="plan", calls=tuple(execution.calls)))
            execution.is_claimed = True
        name = decision.inputs.setup if decision.inputs is not None else ""
        if (setup := self._setups.get(name)) is not None:
            claims = (*claims, Configured(setup=setup))
        recorded = ledger.submit(Decided(decision=decision, task=execution.task), *claims)
        recorded.add_done_callback(partial(self._take_note, name))
        if decision.abstains or ledger.is_at_fault:
            await recorded
        if decision.abstains:
            raise Abstained(decision.reasons[0], decision=decision.id)
        return recorded

    def _take_note(self, setup: str, recorded: "asyncio.Future[int]") -> None:
        """Note a recorded setup; look at a fault, so that it counts as seen if the call failed first."""
        if not recorded.cancelled() and recorded.exception() is None:
            self._setups[setup] = None

    def _note(self, execution: Execution) -> None:
        """Record the run with the next commit: nobody waits for it. One that was claimed has an end whatever it did."""
        if execution.calls or execution.is_claimed:
            run = execution.run
            self._parts.ledger.note(Executed(run=run))
            if self._parts.pacer is not None:
                self._parts.pacer.observe(execution.price_usd)


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


def make_arrival(
    clock: Clock, *, incumbent: WorkerId | None = None, key: str | None = None, check: Check | None = None
) -> Arrival:
    """Name a task that has just arrived; the seed follows from the name, so that a replay has it."""
    name = os.urandom(16).hex()
    return Arrival(
        id=name, seed=derive_seed(name), started=clock.monotonic(), incumbent=incumbent, key=key, check=check
    )


def derive_seed(name: str) -> int:
    """Seed of a decision, from its id: 53 bits, so that JSON readers keep it whole."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 11
