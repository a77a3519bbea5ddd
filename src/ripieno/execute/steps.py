"""Steps: the only way for a workflow to call workers. Each step is within the budget, recorded, and done once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from ripieno.domain import (
    Answer,
    Call,
    Finding,
    Pool,
    Stepped,
    Task,
    Unchecked,
    Verdict,
    Worker,
    WorkerId,
)
from ripieno.domain.grader import Check, Human
from ripieno.errors import BadAnswer, InDoubt, NoVerdict, ProviderError, ProviderRejected
from ripieno.execute.approval import Approvals
from ripieno.execute.budget import RunBudget
from ripieno.execute.execution import Started
from ripieno.execute.failover import choose_next, is_refusal
from ripieno.providers import CallAnswered, Caller, CallFailed, CallResult, LiveCall, Piece
from ripieno.providers.base import Ask
from ripieno.providers.caller import ATTEMPTS

LONGEST_ANSWER = 1_000_000
"""Most characters of an answer. A step with a longer one has failed."""
UNKNOWN = 0.5
"""Rank of an unchecked answer: above failed answers, below those that are likely to be right."""

Sink: TypeAlias = Callable[[Piece], Awaitable[None]]


class Checker(Protocol):
    """Checks answers while their task runs."""

    async def check(self, check: Check, task: Task, answer: Answer, *, author: WorkerId, ask: Ask) -> Verdict:
        """Check one answer. The check calls its workers through `ask`."""
        ...

    async def prefer(
        self, check: Check, task: Task, answers: Sequence[str], *, authors: Sequence[str], ask: Ask
    ) -> int:
        """Return the place of the best of several answers."""
        ...

    def reduce(self, text: str) -> str:
        """Return the final answer of a text in canonical form."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answer that the run could return, and its quality."""

    result: CallAnswered
    quality: float


class Steps:
    """Does the steps of one run.

    Args:
        started: the run. Its recorder gets calls and findings; its journal has the finished steps.
        sink: gets the pieces of the step that certainly makes the final answer, if the run is streamed.
    """

    def __init__(self, caller: Caller, checker: Checker, started: Started, *, sink: Sink | None = None) -> None:
        self.task = started.task
        self.checker = checker
        self.pool = started.pool
        self.best: Candidate | None = None
        """The answer if the run must end now: one to the whole task, never to a part of it."""
        self.has_streamed = False
        self._caller = caller
        self._run = started.decision.id
        self._recorder = started.recorder
        self._journal = started.journal
        self._approvals = Approvals(self._run, self.task, self._journal)
        self._sink = sink
        self._asked: dict[tuple[WorkerId, str], Answer] = {}
        for done in self._journal.steps if self._journal is not None else ():
            self._recorder.record(*done.calls)
            if done.verdict is not None and done.author is not None and not done.verdict.is_void:
                self._recorder.add_finding(Finding(step=done.step, author=done.author, verdict=done.verdict))
        self._budget = RunBudget(started.task.budget, started.account, self._recorder)

    def find_fallbacks(self, workers: Sequence[WorkerId]) -> tuple[WorkerId, ...]:
        """Return the workers that may replace others: those without effects or approval."""
        present = dict.fromkeys(worker for worker in workers if worker in self.pool)
        return tuple(worker for worker in present if not self.pool[worker].is_restricted)

    def keep(self, result: CallAnswered, quality: float) -> None:
        """Keep an answer to the whole task as a candidate."""
        if self.best is None or quality > self.best.quality:
            self.best = Candidate(result=result, quality=quality)

    async def ask(
        self,
        step: str,
        workers: Sequence[WorkerId],
        task: Task,
        *,
        is_last: bool = False,
        needs_approval: bool = False,
    ) -> CallAnswered:
        """Call some workers in order until one answers.

        Args:
            step: name of the step, the same in a resumed run.
            workers: the first, then its fallbacks.
            task: the task of the step.
            is_last: whether the answer is certain to be the run's.
            needs_approval: whether a human must approve, for any worker.

        Raises:
            ProviderError: no worker answered.
            BudgetExhausted: there is no room for the call.
            ApprovalPending: a human must approve first.
            ApprovalDenied: a human did not approve.
            InDoubt: the step has effects, was started before, and its end is unknown.
        """
        done = self._journal.find(step) if self._journal is not None else None
        if done is not None and done.answer is not None:
            return CallAnswered(call=done.calls[-1], answer=done.answer)
        calls: list[Call] = []
        error: ProviderError | None = None
        left, refusals = _list_workers(workers, self.pool), 0
        while left:
            worker = left[0]
            if worker.needs_approval or needs_approval:
                await self._approvals.require(step, worker, task)
            result = await self._ask_one(step, worker, task, is_last=is_last)
            calls.append(result.call)
            if isinstance(result, CallAnswered):
                answer = replace(result.answer, native=None)
                await self._record(Stepped(run="", step=step, calls=tuple(calls), answer=answer))
                return result
            error = result.error
            refusals += is_refusal(error)
            left = choose_next(left[1:], worker, error, refusals=refusals)
            if is_last and self.has_streamed:
                break
        raise error or ProviderRejected(f"worker {workers[0]!r} is no longer in the pool", worker=workers[0])

    async def check(self, step: str, check: Check, given: CallAnswered) -> Verdict:
        """Check an answer.

        Raises:
            NoVerdict: the answer could not be checked, and the run says so. It neither passed nor failed.
            BudgetExhausted: there is no room for the calls of the check.
            ApprovalPending: a human must decide first.
        """
        done = self._journal.find(step) if self._journal is not None else None
        if done is not None and done.verdict is not None and not done.verdict.is_void:
            self.add_finding(step, given.call, done.verdict)
            return done.verdict
        author = given.call.worker
        try:
            if isinstance(check, Human):
                verdict = await self._approvals.judge(step, check, given.answer, author=self.pool[author])
            else:
                verdict = await self.checker.check(check, self.task, given.answer, author=author, ask=self._asker(step))
        except NoVerdict as error:
            self.add_unchecked(step, author, error)
            raise
        self.add_finding(step, given.call, verdict)
        await self._record(Stepped(run="", step=step, author=author, verdict=verdict))
        return verdict

    def add_finding(self, step: str, about: Call, verdict: Verdict) -> None:
        """Record a verdict on the answer of a call."""
        self._recorder.add_finding(Finding(step=step, author=about.worker, verdict=verdict), about=about.step)

    def add_unchecked(self, step: str, author: WorkerId, error: NoVerdict) -> None:
        """Record that an answer could not be checked."""
        self._recorder.add_finding(Unchecked(step=step, author=author, verifier=error.verifier, reason=error.message))

    async def prefer(self, step: str, check: Check, given: Sequence[CallAnswered]) -> int:
        """Return the place of the best of several answers.

        Raises:
            NoVerdict: the judge failed, and the run says so.
        """
        texts, authors = [each.answer.text for each in given], [each.call.worker for each in given]
        try:
            return await self.checker.prefer(check, self.task, texts, authors=authors, ask=self._asker(step))
        except NoVerdict as error:
            self.add_unchecked(step, authors[0], error)
            raise

    def _asker(self, step: str) -> Ask:
        """Make the function through which a check calls workers. Its calls are steps, and repeats are cached."""
        asked = 0

        async def ask(worker: WorkerId, task: Task) -> Answer:
            nonlocal asked
            asked += 1
            known = self._asked.get((worker, task.digest))
            if known is None:
                known = (await self.ask(f"{step}.{asked}", (worker,), task)).answer
                self._asked[worker, task.digest] = known
            return known

        return ask

    async def _ask_one(self, step: str, worker: Worker, task: Task, *, is_last: bool) -> CallResult:
        async with self._budget.reserve(worker, task) as hold:
            if worker.has_effects and self._journal is not None and not await self._journal.begin(step, worker.id):
                hold.is_unused = True
                raise InDoubt(self._run, step=step, worker=worker.id)
            live, began = LiveCall(worker), asyncio.get_running_loop().time()
            try:
                result = await self._make(live, hold.task, is_last=is_last)
            except asyncio.CancelledError:  # the sent prompt is read and billed
                waited = asyncio.get_running_loop().time() - began
                left = live.ended or self._caller.abandon(worker, hold.task, latency_s=waited)
                hold.call = replace(left.call, step=step)
                self._recorder.record(hold.call)
                raise
            hold.call = replace(result.call, step=step)
        self._recorder.record(hold.call)
        if isinstance(result, CallAnswered) and len(result.answer.text) > LONGEST_ANSWER:
            error = BadAnswer(f"{worker.id!r} answered {len(result.answer.text)} characters", worker=worker.id)
            return CallFailed(call=hold.call, error=error)
        return replace(result, call=hold.call)

    async def _make(self, live: LiveCall, task: Task, *, is_last: bool) -> CallResult:
        if is_last and self._sink is not None:
            return await self._stream(live, task, self._sink)
        return await self._caller.call(live.worker, task, attempts=1 if live.worker.has_effects else ATTEMPTS)

    async def _stream(self, live: LiveCall, task: Task, sink: Sink) -> CallResult:
        self._recorder.serving = live.worker.id
        pieces = self._caller.stream(live, task)
        try:
            async for piece in pieces:
                self.has_streamed = True
                await sink(piece)
        except ProviderError:
            pass  # the result has it
        finally:  # the run may be cancelled while the sink is full
            await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
        return live.result()

    async def _record(self, done: Stepped) -> None:
        if self._journal is not None:
            await self._journal.record(replace(done, run=self._run))


def _list_workers(workers: Sequence[WorkerId], pool: Pool) -> list[Worker]:
    """Return the workers of a step in order. Workers with effects have no fallback and are no fallback."""
    present = [pool[worker] for worker in dict.fromkeys(workers) if worker in pool]
    if present and present[0].id == workers[0] and present[0].has_effects:
        return present[:1]
    return [worker for worker in present if worker.id == workers[0] or not worker.is_restricted]
