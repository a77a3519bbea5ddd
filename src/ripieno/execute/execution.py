"""Execution: the states of one run, and the recorder of its calls, which is all that changes while it runs."""

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
    """Collects what one run does: calls and findings are added, never changed, and none after the run has ended."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._found: dict[str, Finding | Unchecked] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._serving: WorkerId | None = None
        self._limited_tokens: int | None = None
        self._ended: Ended | None = None

    @property
    def calls(self) -> tuple[Call, ...]:
        """Calls so far, in the order in which they ended."""
        return tuple(self._calls)

    @property
    def found(self) -> tuple[Finding | Unchecked, ...]:
        """What the workflow's own checks found, or could not find out, in their order."""
        return tuple(self._found.values())

    @property
    def cost_usd(self) -> float:
        """Known part of the price of all calls so far, in US dollars."""
        return sum_costs([call.cost_usd for call in self._calls])[0]

    @property
    def price_usd(self) -> float | None:
        """Price of all calls so far, in US dollars; None where any is unknown."""
        known, unknown = sum_costs([call.cost_usd for call in self._calls])
        return None if unknown else known

    @property
    def serving(self) -> WorkerId | None:
        """The worker that is answering, while a stream runs."""
        return self._serving

    @property
    def limited_tokens(self) -> int | None:
        """Longest answer, in tokens, of the latest call that the budget has cut; None where it cut none."""
        return self._limited_tokens

    @property
    def ended(self) -> "Ended | None":
        """How the run ended; None while it is under way."""
        return self._ended

    def record(self, *calls: Call) -> None:
        """Add calls that have ended.

        Raises:
            RuntimeError: the run has ended.
        """
        self._require_open()
        self._calls += calls

    def note(self, found: Finding | Unchecked, *, about: str | None = None) -> None:
        """Add what a check found, once for each step that checks.

        Args:
            found: the finding.
            about: name of the step whose answer was checked.

        Raises:
            RuntimeError: the run has ended.
        """
        self._require_open()
        self._found[found.step] = found
        if about is not None and isinstance(found, Finding):
            self._verdicts[about] = found.verdict

    def serve(self, worker: WorkerId) -> None:
        """Note which worker answers from now on."""
        self._serving = worker

    def limit(self, tokens: int) -> None:
        """Note that the budget cuts the answer of a call."""
        self._limited_tokens = tokens

    def end(self, ended: "Ended") -> None:
        """End the run.

        Raises:
            RuntimeError: it has ended before.
        """
        self._require_open()
        self._ended = ended

    def verdict_of(self, step: str) -> Verdict | None:
        """Return what was found last about the answer of a step."""
        return self._verdicts.get(step)

    def _require_open(self) -> None:
        if self._ended is not None:
            raise RuntimeError("the run has ended: nothing can be added to it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A run that has been decided; `recorder` collects what it does, until it ends in one of three states."""

    decision: Decision
    task: Task
    setup: RoutingSetup
    """What was in force at the moment of the decision; of a run that goes on, what is in force now."""
    key: str | None = None
    """Id of the virtual key that pays."""
    account: Account | None = None
    """What holds the key's money back for each call; None where no key pays."""
    journal: Journal | None = None
    """The record of its steps; None where they are not recorded one by one. The ledger waits for its end then."""
    director: Director | None = None
    """Who chooses the steps, where the workflow is one of turns."""
    memory: Scope | None = None
    """Whose memory keeps what is asked and answered; None leaves memory out."""
    thread: str = ""
    """The conversation that the task belongs to, as memory keeps it; empty stands for the run alone."""
    recorder: CallRecorder = field(default_factory=CallRecorder)
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """The loop's time when the decision was there."""

    @property
    def pool(self) -> Pool:
        """The workers of that moment."""
        return self.setup.pool

    @property
    def solo(self) -> Solo | None:
        """The workflow, where it needs no steps; see `find_solo`."""
        return find_solo(self.decision.workflow, self.pool)

    @property
    def limit_s(self) -> float | None:
        """Seconds that the task may take from its arrival on."""
        deadline, seconds = self.task.objective.deadline_s, self.task.budget.seconds
        if deadline is None or seconds is None:
            return seconds if deadline is None else deadline
        return min(deadline, seconds)

    def result(self) -> "Answered":
        """Return the run with its answer, once it has ended.

        Raises:
            RuntimeError: it has not ended.
            RipienoError: it has ended without an answer.
        """
        match self.recorder.ended:
            case Answered() as answered:
                return answered
            case Failed(error=error) | Suspended(pending=error):
                raise error
            case None:
                raise RuntimeError("the run has not ended")

    def end(self, result: CallAnswered, *, ended_early: str | None = None) -> "Answered":
        """End the run with an answer.

        Args:
            result: whose answer it is.
            ended_early: why the workflow was not carried through, where this is the best that it had.
        """
        answer, author = result.answer, result.call.worker
        recorded = replace(answer, wire=b"") if answer.wire else answer
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
        """Make the record of the run as it stands."""
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
            mode=self.decision.mode,
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
    """With the bytes of its wire, which the record leaves out."""
    verdict: Verdict | None
    """What the workflow itself found about the answer; None where nothing checked it."""

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return self.started.decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A run that ended without an answer."""

    run: Run
    error: BaseException
    """Why: an error of the package, a fault, or the cancellation by who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """A run that waits for a human; it is taken up again under the same id, as another `Started`."""

    pending: ApprovalPending


Ended: TypeAlias = Answered | Failed | Suspended
"""How a run that was started can leave this process."""


def find_solo(workflow: Workflow, pool: Pool) -> Solo | None:
    """Return a workflow that needs no steps: that of a single worker, where a call of it is a question and no more."""
    return workflow if isinstance(workflow, Solo) and not pool[workflow.worker].is_careful else None


@dataclass(frozen=True, slots=True)
class Ending:
    """Ends a run that leaves the block with an error, unless it has ended before; the error passes on."""

    started: Started

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """End the run as suspended or failed; a closed stream is a cancelled one."""
        if error is None or self.started.recorder.ended is not None:
            return
        if isinstance(error, ApprovalPending):
            self.started.recorder.end(Suspended(pending=error))
        else:
            self.started.fail(asyncio.CancelledError() if isinstance(error, GeneratorExit) else error)


@asynccontextmanager
async def in_time(started: Started) -> AsyncIterator[None]:
    """Hold the deadline, counted from the task's arrival, and the budget's time.

    Raises:
        DeadlineExceeded: the deadline passed.
        BudgetExhausted: the budget's time ended before it.
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
