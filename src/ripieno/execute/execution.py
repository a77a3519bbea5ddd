"""Execution: the states of one run, and the recorder of its calls, which is the only part that changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ripieno.domain import (
    Account,
    Answer,
    Call,
    Decision,
    Finding,
    Origin,
    Pool,
    RoutingSetup,
    Run,
    Solo,
    Task,
    Unchecked,
    Verdict,
    WorkerId,
    Workflow,
    sum_costs,
)
from ripieno.domain.memory import Scope
from ripieno.errors import ApprovalPending, BudgetExhausted, DeadlineExceeded, ProviderError
from ripieno.execute.director import Director
from ripieno.execute.journal import Journal
from ripieno.providers import CallAnswered


class CallRecorder:
    """Collects the calls and findings of one run. They are never changed, and none is added after its end."""

    def __init__(self) -> None:
        self.serving: WorkerId | None = None
        """The worker that is answering, while a stream runs."""
        self.limited_tokens: int | None = None
        """The longest answer, in tokens, of the latest call that the budget limited; None if none was."""
        self._calls: list[Call] = []
        self._beside: list[Call] = []
        self._found: dict[str, Finding | Unchecked] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._ended: Ended | None = None

    @property
    def calls(self) -> tuple[Call, ...]:
        """Return the calls so far, in order of their ends."""
        return tuple(self._calls)

    @property
    def beside(self) -> tuple[Call, ...]:
        """Return the calls of other runs that this run caused. Their own entries record them."""
        return tuple(self._beside)

    @property
    def own_cost_usd(self) -> float:
        """Return the known part of the price of the run's own calls so far, in US dollars."""
        return sum_costs([call.cost_usd for call in self._calls])[0]

    @property
    def found(self) -> tuple[Finding | Unchecked, ...]:
        """Return the findings of the workflow's own checks, and the checks without a verdict, in order."""
        return tuple(self._found.values())

    @property
    def cost_usd(self) -> float:
        """Return the known part of the price of all calls so far and of those beside them, in US dollars."""
        return sum_costs([call.cost_usd for call in (*self._calls, *self._beside)])[0]

    @property
    def price_usd(self) -> float | None:
        """Return the price of all calls so far and of those beside them, in US dollars; None if any is unknown."""
        known, unknown = sum_costs([call.cost_usd for call in (*self._calls, *self._beside)])
        return None if unknown else known

    @property
    def ended(self) -> "Ended | None":
        """Return the end of the run; None while it runs."""
        return self._ended

    def record(self, *calls: Call) -> None:
        """Add calls that have ended.

        Raises:
            RuntimeError: the run has ended.
        """
        self._require_open()
        self._calls += calls

    def add_beside(self, *calls: Call) -> None:
        """Add calls of another run that this run caused: they cost money and attempts, and are recorded elsewhere."""
        self._beside += calls

    def add_finding(self, found: Finding | Unchecked, *, about: str | None = None) -> None:
        """Add the finding of a check, once per checking step. `about` names the checked step.

        Raises:
            RuntimeError: the run has ended.
        """
        self._require_open()
        self._found[found.step] = found
        if about is not None and isinstance(found, Finding):
            self._verdicts[about] = found.verdict

    def end(self, ended: "Ended") -> None:
        """End the run.

        Raises:
            RuntimeError: the run has already ended.
        """
        self._require_open()
        self._ended = ended

    def verdict_of(self, step: str) -> Verdict | None:
        """Return the latest verdict on the answer of a step."""
        return self._verdicts.get(step)

    def _require_open(self) -> None:
        if self._ended is not None:
            raise RuntimeError("the run has ended: it accepts no more calls or findings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A decided run. `recorder` collects its calls until it ends in one of three states."""

    decision: Decision
    task: Task
    setup: RoutingSetup
    """The routing setup at the time of the decision; for a resumed run, the current one."""
    key: str | None = None
    account: Account | None = None
    """The account that holds the key's money for each call; None if no key pays."""
    journal: Journal | None = None
    """The record of its steps; None if they are not recorded one by one. The ledger waits for the end then."""
    director: Director | None = None
    memory: Scope | None = None
    """Scope of the memory that keeps question and answer; None leaves memory out."""
    thread: str = ""
    """The conversation of the task, as memory keeps it; empty stands for the run alone."""
    recorder: CallRecorder = field(default_factory=CallRecorder)
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """The loop's time of the decision."""

    @property
    def pool(self) -> Pool:
        """Return the workers of the setup."""
        return self.setup.pool

    @property
    def solo(self) -> Solo | None:
        """Return the workflow if it needs no steps. See `find_solo`."""
        return find_solo(self.decision.workflow, self.pool)

    @property
    def limit_s(self) -> float | None:
        """Return the seconds that the task may take from its arrival on."""
        deadline, seconds = self.task.objective.deadline_s, self.task.budget.seconds
        if deadline is None or seconds is None:
            return seconds if deadline is None else deadline
        return min(deadline, seconds)

    def result(self) -> "Answered":
        """Return the run with its answer, once it has ended.

        Raises:
            RuntimeError: the run has not ended.
            RipienoError: the run ended without an answer.
        """
        match self.recorder.ended:
            case Answered() as answered:
                return answered
            case Failed(error=error) | Suspended(pending=error):
                raise error
            case None:
                raise RuntimeError("the run has not ended")

    def end(self, result: CallAnswered, *, ended_early: str | None = None) -> "Answered":
        """End the run with an answer. `ended_early` says why the workflow stopped early with its best answer."""
        answer, author = result.answer, result.call.worker
        recorded = replace(answer, native=None) if answer.native is not None else answer
        ended = Answered(
            started=self,
            run=self.make_run(author, answer=recorded, ended_early=ended_early),
            answer=answer,
            verdict=self.recorder.verdict_of(result.call.step),
        )
        self.recorder.end(ended)
        return ended

    def fail(self, error: BaseException) -> None:
        """End the run without an answer."""
        calls = self.recorder.calls
        author = calls[-1].worker if calls and isinstance(error, ProviderError) else self.decision.worker
        self.recorder.end(Failed(run=self.make_run(author), error=error))

    def make_run(self, author: WorkerId, *, answer: Answer | None = None, ended_early: str | None = None) -> Run:
        """Make the record of the run at its current state."""
        calls, found = self.recorder.calls, self.recorder.found
        workflow = self.decision.workflow
        return Run(
            id=self.decision.id,
            task=self.task.digest,
            origin=Origin.TRAFFIC,
            calls=calls,
            answer=answer,
            decision=self.decision.id,
            key=self.key,
            workflow=type(workflow).__name__.lower(),
            learned_workflow=self.decision.learned_workflow,
            author=None if isinstance(workflow, Solo) and calls else author,
            findings=tuple(each for each in found if isinstance(each, Finding)),
            unchecked=tuple(each for each in found if isinstance(each, Unchecked)),
            ended_early=ended_early,
            wall_s=asyncio.get_running_loop().time() - self.began if self.solo is None else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A run that ended with an answer."""

    started: Started
    run: Run
    answer: Answer
    """The answer with its received form, which the record leaves out."""
    verdict: Verdict | None
    """The workflow's own verdict on the answer; None if nothing checked it."""

    @property
    def decision(self) -> Decision:
        """Return the decision."""
        return self.started.decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A run that ended without an answer."""

    run: Run
    error: BaseException
    """The cause: an error of the package, a fault, or a cancellation by the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """A run that waits for a human. It resumes under the same id, as another `Started`."""

    pending: ApprovalPending


Ended: TypeAlias = Answered | Failed | Suspended
"""The ways in which a started run can leave this process."""


def find_solo(workflow: Workflow, pool: Pool) -> Solo | None:
    """Return a workflow of a single worker that needs no steps, because a call only asks; else None."""
    return workflow if isinstance(workflow, Solo) and not pool[workflow.worker].is_restricted else None


@dataclass(frozen=True, slots=True)
class Ending:
    """Ends the run if an error leaves the block, unless it has ended already. The error propagates."""

    started: Started

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """End the run as suspended or failed. A closed stream counts as cancelled."""
        if error is None or self.started.recorder.ended is not None:
            return
        if isinstance(error, ApprovalPending):
            self.started.recorder.end(Suspended(pending=error))
        else:
            self.started.fail(asyncio.CancelledError() if isinstance(error, GeneratorExit) else error)


@asynccontextmanager
async def in_time(started: Started) -> AsyncIterator[None]:
    """Enforce the deadline, counted from the task's arrival, and the budget's time.

    Raises:
        DeadlineExceeded: the deadline passed.
        BudgetExhausted: the budget's time ended before the deadline.
    """
    deadline, limit = started.task.objective.deadline_s, started.limit_s
    if limit is None:
        yield
        return
    try:
        async with asyncio.timeout_at(started.began + limit - started.decision.decide_s):
            yield
    except TimeoutError as error:
        if limit == deadline:
            raise DeadlineExceeded(limit) from error
        raise BudgetExhausted("time (s)", spent=limit, limit=limit) from error
