"""The whole path, once: analyze, mask, estimate, decide, execute, record."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace

from ripieno.analyze import Analyzer
from ripieno.conductor import Conductor, Directors, Planner
from ripieno.domain import (
    Account,
    Arrival,
    Budget,
    Call,
    Clock,
    Decision,
    Features,
    Mode,
    Objective,
    Pool,
    Reason,
    Run,
    Task,
    WorkerId,
    names_worker,
)
from ripieno.domain.grader import Check
from ripieno.errors import NoEligibleWorker, ProviderError, RipienoError
from ripieno.execute import (
    Answered,
    CallRecorder,
    Executor,
    Journals,
    RunBudget,
    Started,
    Unfinished,
    find_solo,
)
from ripieno.execute.recording import Recording, recorded_beside
from ripieno.ledger import Ledger
from ripieno.memory.compact import Compacted, Write
from ripieno.memory.harness import Harness
from ripieno.memory.shorten import Author, Shortener
from ripieno.providers import Piece
from ripieno.route import ConditionsSource, Pacer, Router

CANARY_BUCKETS = 1000
"""Parts of the traffic; a canary decides some of them."""
SUMMARY_SHARE = 0.5
"""Largest share of a request's budget that the summary of its older turns may cost. The rest is for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingState:
    """The routers of one pool, for one state of the checkpoints."""

    router: Router
    canary: Router | None = None
    """Router that decides a share of the tasks until it is promoted or rolled back."""
    canary_share: float = 0.0

    @property
    def pool(self) -> Pool:
        """Return the pool in force."""
        return self.router.setup.pool

    def pick(self, arrival: Arrival) -> Router:
        """Return the router of one task. It depends on the seed alone, and the decision records its predictor."""
        is_canary = self.canary is not None and arrival.seed % CANARY_BUCKETS < self.canary_share * CANARY_BUCKETS
        return self.canary if is_canary and self.canary is not None else self.router


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorServices:
    """The stages of a task's path, and the ledger."""

    analyzer: Analyzer
    executor: Executor
    ledger: Ledger
    conditions: ConditionsSource
    clock: Clock
    journals: Journals | None = None
    """Journals of runs of several steps; None lets these runs end with the process."""
    conductors: Mapping[Mode, Conductor] = field(default_factory=dict)
    directors: Directors | None = None
    shortener: Shortener | None = None
    harness: Harness | None = None
    """Opens memory at the first request that uses it."""
    pacer: Pacer | None = None
    """Keeps the mean price of a task, if a budget is set."""


class Orchestrator:
    """Runs tasks from arrival to a recorded run."""

    def __init__(self, services: OrchestratorServices, routing: RoutingState) -> None:
        self._services = services
        self._routing = routing
        self._recording = Recording(services.ledger, services.pacer.observe if services.pacer is not None else None)
        self._planner = Planner(services.analyzer, services.executor.caller, services.conductors, services.directors)

    async def decide(self, task: Task, *, arrival: Arrival | None = None) -> Decision:
        """Decide one task without calling a worker or recording anything.

        Raises:
            NoEligibleWorker: no worker may take the task.
        """
        arrival = arrival or make_arrival(self._services.clock)
        if names_worker(task, arrival.workflow):
            features = await self._services.analyzer.survey(task)
        else:
            features = await self._services.analyzer.analyze(task)
            task = replace(task, objective=self._complete(task.objective, features))
        router = self._routing.pick(arrival)
        decision = router.decide(router.gather(task, features, self._services.conditions(), arrival=arrival))
        return replace(decision, decide_s=self._services.clock.monotonic() - arrival.started)

    def _complete(self, objective: Objective, features: Features) -> Objective:
        """Return the caller's objective with the analyzed criticalities and the pacer's weight of money."""
        pacer = self._services.pacer
        return replace(
            objective,
            mission_criticality=features.mission_criticality,
            time_criticality=features.time_criticality,
            money_weight=pacer.money_weight if pacer is not None else 0.0,
        )

    async def run(self, task: Task, *, arrival: Arrival | None = None) -> tuple[Decision, Run]:
        """Run one task. See `run_detailed`."""
        answered = await self.run_detailed(task, arrival=arrival)
        return answered.decision, answered.run

    async def run_detailed(self, task: Task, *, arrival: Arrival | None = None) -> Answered:
        """Run one task, and return the run with its answer and verdict.

        Raises:
            RipienoError: there is no answer. See `start` and `finish`.
        """
        return await self.finish(await self.start(task, arrival=arrival))

    async def start(self, task: Task, *, arrival: Arrival | None = None) -> Started:
        """Decide one task, and get its plan. Nothing is recorded yet.

        Raises:
            NoEligibleWorker: no worker may take the task.
            LedgerCorrupt: the ledger is damaged, and would lose the record.
        """
        self._services.ledger.damage.require_none()
        arrival, pool = arrival or make_arrival(self._services.clock), self._routing.pool
        notes: list[str] = []
        recorder = CallRecorder()
        if (shortener := self._services.shortener) is not None:
            task, done = await _shorten(self, task, arrival, shortener, recorder)
            notes += [done.describe()] if done is not None else []
        harness, read, project = self._services.harness, None, ""
        if harness is not None and arrival.memory is not None:
            task, read = await harness.before(task, arrival.memory)
            project = arrival.memory.project
            notes.append(f"memory is {read.status.value}: {len(read.items)} items are shown")
        decision = await self.decide(task, arrival=arrival)
        if notes:
            decision = replace(decision, memory=read, project=project, reasons=(*decision.reasons, *notes))
        if arrival.workflow is None:
            budget = RunBudget(task.budget, arrival.account, recorder)
            decision = await self._planner.attach_plan(decision, task, pool, budget=budget, recorder=recorder)
        decision, director = await self._planner.attach_director(decision, task, pool)
        journals = self._services.journals if find_solo(decision.workflow, pool) is None else None
        return Started(
            decision=decision,
            task=task,
            setup=self._routing.pick(arrival).setup,
            key=arrival.key,
            account=arrival.account,
            journal=journals.open(decision.id) if journals is not None else None,
            director=director,
            memory=arrival.memory,
            thread=arrival.thread,
            recorder=recorder,
        )

    async def finish(self, started: Started) -> Answered:
        """Run a decided task. Its decision is durable when this returns, and the next commit contains its end.

        Raises:
            Abstained: no worker was expected to be worth a call. The decision is recorded.
            ProviderError: every called worker failed. The run is recorded.
            DeadlineExceeded: no worker answered in time.
            ApprovalPending: a human must approve first. The run continues from there.
            LedgerError: the decision could not be recorded, so no answer is returned.
        """
        recorded = await self._recording.begin(started)
        async with recorded_beside(recorded):
            answered = await self._execute(started)
        await _remember(answered, self._services.harness)
        return answered

    async def stream(self, started: Started) -> AsyncIterator[Piece]:
        """Run a decided task piece by piece. The first piece comes after the decision is durable.

        After the last piece, `started.result()` is the run with its whole answer.

        Raises:
            RipienoError: see `finish`. The iterator raises the same errors.
        """
        return self._stream(started, await self._recording.begin(started))

    async def _stream(self, started: Started, recorded: "asyncio.Future[int]") -> AsyncIterator[Piece]:
        pieces = self._services.executor.stream(started)
        try:
            async with recorded_beside(recorded):
                piece = await anext(pieces, None)
            while piece is not None:
                yield piece
                piece = await anext(pieces, None)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
            self._recording.end(started)
        await _remember(started.result(), self._services.harness)

    async def resume(self, found: Unfinished) -> Answered | None:
        """Continue a run without an owner. Return None if another process was faster.

        Raises:
            RipienoError: as `finish`. The end of the run is recorded.
        """
        decided = await asyncio.to_thread(self._services.ledger.decisions.find, found.claim.run)
        journals = self._services.journals
        journal = await journals.take_over(found) if journals is not None else None
        if journal is None:
            return None
        setup = self._routing.router.setup
        decision, director = await self._planner.attach_director(decided.decision, decided.task, setup.pool)
        run = Started(
            decision=decision, task=decided.task, setup=setup, key=found.claim.key, journal=journal, director=director
        )
        return await self._execute(run)

    async def preview_plan(self, task: Task) -> tuple[Decision, tuple[Call, ...]]:
        """Decide one task and write its plan, without running or recording it.

        Returns:
            The decision, whose workflow is the plan if one could be written, and the calls that wrote it.
        """
        started = await self.start(task)
        return started.decision, started.recorder.calls

    async def generate_text(
        self,
        task: Task,
        worker: str | None,
        *,
        key: str | None = None,
        account: Account | None = None,
        beside: CallRecorder | None = None,
    ) -> str:
        """Run an internal task on a configured worker, or on one that the router chooses. Return the text.

        Workers whose calls have effects or need approval are not eligible, because no request names them.

        Args:
            task: the task. Only workers that its objective permits may write.
            worker: id of the worker; None or `auto` lets the router choose.
            key: id of the virtual key that pays.
            account: account of the run that needs the text. This run opens one beside it.
            beside: recorder of the run that needs the text. It gets the calls, because they are part of its cost.

        Raises:
            NoEligibleWorker: the objective does not permit the worker.
            RipienoError: no worker answered.
        """
        task = replace(task, objective=replace(task.objective, workers=(), allowed=_limit_workers(task, worker)))
        arrival = make_arrival(self._services.clock, key=key)
        own = account.open(arrival.id) if account is not None else None
        recorder = CallRecorder()
        try:
            started = await self.start(task, arrival=replace(arrival, account=own))
            recorder = started.recorder
            return (await self.finish(started)).answer.text
        finally:
            if beside is not None:
                beside.add_beside(*recorder.calls)
            if own is not None:
                own.close(cost_usd=recorder.own_cost_usd, is_recorded=bool(recorder.calls))

    async def _execute(self, started: Started) -> Answered:
        try:
            return await self._services.executor.execute(started)
        finally:
            self._recording.end(started)


async def _shorten(
    orchestrator: Orchestrator, task: Task, arrival: Arrival, shortener: Shortener, recorder: CallRecorder
) -> tuple[Task, Compacted | None]:
    """Compact the older turns of a task. The request, its key and its budget bound the worker that writes.

    A summary is written only for a task that can be decided with the rest of the budget.
    """
    most, objective = task.budget, task.objective
    half = Budget(
        cost_usd=None if most.cost_usd is None else most.cost_usd * SUMMARY_SHARE,
        tokens=None if most.tokens is None else int(most.tokens * SUMMARY_SHARE),
    )

    async def write(wanted: Task) -> str:
        bounded = Objective(privacy=objective.privacy, workers=objective.workers, allowed=objective.allowed)
        asked = replace(wanted, objective=bounded, budget=half)
        key, account = arrival.key, arrival.account
        try:
            return await orchestrator.generate_text(asked, shortener.worker, key=key, account=account, beside=recorder)
        except ProviderError:
            if not recorder.cost_usd:
                raise
            return ""  # it was paid for: an empty summary is refused, and not asked for again

    async def find(shown: Task) -> Write | None:
        if most.calls is not None and most.calls < 2:
            return None
        try:
            _limit_workers(task, shortener.worker)
            left = replace(most, cost_usd=half.cost_usd)
            decision = await orchestrator.decide(replace(shown, budget=left), arrival=arrival)
        except RipienoError:  # the request itself is refused, or leaves nothing for a summary
            return None
        return None if decision.abstains else write

    task, done = await shortener.shorten(task, author=Author(key=arrival.key, find=find))
    if half.cost_usd is not None and any(call.cost_usd is None for call in recorder.beside):
        task = replace(task, budget=replace(most, cost_usd=half.cost_usd))
    return task, done


async def _remember(answered: Answered, harness: Harness | None) -> None:
    """Store question and answer, if the request uses a memory."""
    started = answered.started
    if harness is not None and started.memory is not None:
        run = answered.run.id
        text, thread = answered.answer.text, started.thread or run
        await harness.after(started.task, text, started.memory, run=run, thread=thread)


def _limit_workers(task: Task, worker: str | None) -> tuple[str, ...]:
    """Return the workers that may write a text for a task: the configured one, or all that the task permits.

    Raises:
        NoEligibleWorker: the task does not permit the worker.
    """
    permitted = task.objective.permitted
    if worker in (None, "auto") and permitted != ():
        return permitted or ()
    if permitted is None or worker in permitted:
        return (str(worker),)
    raise NoEligibleWorker({str(worker): f"{Reason.NOT_ALLOWED} (the request and its key do not allow it)"})


def make_arrival(
    clock: Clock,
    *,
    name: str | None = None,
    incumbent: WorkerId | None = None,
    key: str | None = None,
    check: Check | None = None,
) -> Arrival:
    """Make the arrival of a new task. Its seed follows from its name, so a replay has the same seed."""
    name = name or os.urandom(16).hex()
    return Arrival(
        id=name, seed=derive_seed(name), started=clock.monotonic(), incumbent=incumbent, key=key, check=check
    )


def derive_seed(name: str) -> int:
    """Derive a decision's seed from its id: 53 bits, which every JSON reader keeps exactly."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 11
