"""Steps: the only way in which a workflow asks anybody. Each is within the budget, recorded, and made once."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from ripieno.domain import (
    Answer,
    Call,
    Finding,
    Pool,
    Proposed,
    Resolved,
    Stepped,
    Task,
    Unchecked,
    Verdict,
    Worker,
    WorkerId,
)
from ripieno.domain.entry import EXPIRY
from ripieno.domain.grader import Check, Human
from ripieno.errors import (
    ApprovalDenied,
    ApprovalPending,
    BadAnswer,
    ConfigError,
    InDoubt,
    NoVerdict,
    ProviderError,
    ProviderRejected,
)
from ripieno.execute.budget import Purse
from ripieno.execute.execution import Execution
from ripieno.execute.journal import APPROVAL_S, Journal
from ripieno.providers import Called, Caller, LiveCall, Piece
from ripieno.providers.base import Ask
from ripieno.providers.caller import ATTEMPTS

LONGEST_ANSWER = 1_000_000
"""Characters; a step that answers more has failed."""
UNKNOWN = 0.5
"""Rank of an answer that could not be checked: above those that failed, below those that are likely to be right."""

Sink: TypeAlias = Callable[[Piece], Awaitable[None]]


class Checker(Protocol):
    """Finds out what an answer is worth while its task is under way."""

    async def check(self, check: Check, task: Task, answer: Answer, *, author: WorkerId, ask: Ask) -> Verdict:
        """Check one answer; workers that have to be asked for that are asked through `ask`."""
        ...

    async def prefer(
        self, check: Check, task: Task, answers: Sequence[str], *, authors: Sequence[str], ask: Ask
    ) -> int:
        """Which of several answers is the best: its place."""
        ...

    def reduce(self, text: str) -> str:
        """The final answer of a text, in a form in which equal answers are equal."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Whom steps are made with."""

    caller: Caller
    checker: Checker
    pool: Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answer that could be given, and what was found about it."""

    called: Called
    quality: float


class Steps:
    """Makes the steps of one run.

    Args:
        crew: who is asked.
        execution: takes in calls and findings.
        journal: what was done before, and where it is recorded; None keeps no record of single steps.
        sink: takes the pieces of the step that is certain to give the final answer, where somebody listens.
    """

    def __init__(
        self, crew: Crew, execution: Execution, *, journal: Journal | None = None, sink: Sink | None = None
    ) -> None:
        self.task = execution.task
        self.checker = crew.checker
        self.pool = crew.pool
        self.best: Candidate | None = None
        """What can be given if the run must end now: an answer to the whole task, never a part of the way to one."""
        self.has_streamed = False
        self._crew = crew
        self._execution = execution
        self._journal = journal
        self._sink = sink
        self._asked: dict[tuple[WorkerId, str], Answer] = {}
        for done in journal.steps if journal is not None else ():
            execution.calls += done.calls
            if done.verdict is not None and done.author is not None and not done.verdict.is_void:
                execution.findings.append(Finding(step=done.step, author=done.author, verdict=done.verdict))
        self._purse = Purse(execution)

    def find_stand_ins(self, workers: Sequence[WorkerId]) -> tuple[WorkerId, ...]:
        """Which of some workers may stand in for others: those of which a call is a question and no more."""
        present = dict.fromkeys(worker for worker in workers if worker in self.pool)
        return tuple(worker for worker in present if not self.pool[worker].is_careful)

    def keep(self, called: Called, quality: float) -> None:
        """Remember an answer to the whole task as one that could be given."""
        if self.best is None or quality > self.best.quality:
            self.best = Candidate(called=called, quality=quality)

    async def ask(
        self,
        step: str,
        workers: Sequence[WorkerId],
        task: Task,
        *,
        is_last: bool = False,
        needs_approval: bool = False,
    ) -> Called:
        """Ask the first of some workers that answers.

        Args:
            step: name of the step, the same whenever the run comes by.
            workers: in order; those after the first stand in for it.
            task: what is asked.
            is_last: whether the answer is certain to be the run's.
            needs_approval: whether a human must agree, whoever is asked.

        Raises:
            ProviderError: nobody answered.
            BudgetExhausted: there is no room for the call.
            ApprovalPending: a human must agree first.
            ApprovalDenied: a human did not agree.
            InDoubt: it changes something, was begun before, and its end is not known.
        """
        done = self._journal.find(step) if self._journal is not None else None
        if done is not None and done.answer is not None:
            return Called(call=done.calls[-1], answer=done.answer)
        calls: list[Call] = []
        error: ProviderError | None = None
        for worker in _take_team(workers, self.pool):
            if worker.needs_approval or needs_approval:
                await self._approve(step, worker, task)
            called = await self._ask_one(step, worker, task, is_last=is_last)
            calls.append(called.call)
            if called.answer is not None:
                answer = replace(called.answer, wire=b"") if called.answer.wire else called.answer
                await self._record(Stepped(run="", step=step, calls=tuple(calls), answer=answer))
                return called
            error = called.error
            is_rejected = isinstance(error, ProviderRejected) and not error.blames_worker
            if is_rejected or (is_last and self.has_streamed):
                break
        raise error or ProviderRejected(f"{workers[0]!r} is no worker of the pool any more", worker=workers[0])

    async def check(self, step: str, check: Check, called: Called) -> Verdict:
        """Check an answer.

        Raises:
            NoVerdict: it could not be checked; the run says so. It has neither passed nor failed.
            BudgetExhausted: there is no room for the calls that it takes.
            ApprovalPending: a human is to say.
        """
        done = self._journal.find(step) if self._journal is not None else None
        if done is not None and done.verdict is not None and not done.verdict.is_void:
            self._execution.judged[called.call.step] = done.verdict
            return done.verdict
        author = called.call.worker
        assert called.answer is not None
        try:
            if isinstance(check, Human):
                verdict = await self._ask_human(step, check, called.answer, author=author)
            else:
                verdict = await self._crew.checker.check(
                    check, self.task, called.answer, author=author, ask=self._asker(step)
                )
        except NoVerdict as error:
            self.note_unchecked(step, author, error)
            raise
        self.note(step, called.call, verdict)
        await self._record(Stepped(run="", step=step, author=author, verdict=verdict))
        return verdict

    def note(self, step: str, about: Call, verdict: Verdict) -> None:
        """Take in what a step found about the answer of a call."""
        self._execution.findings.append(Finding(step=step, author=about.worker, verdict=verdict))
        self._execution.judged[about.step] = verdict

    def note_unchecked(self, step: str, author: WorkerId, error: NoVerdict) -> None:
        """Take in that an answer could not be checked."""
        found = Unchecked(step=step, author=author, verifier=error.verifier, reason=error.message)
        self._execution.unchecked.append(found)

    async def prefer(self, step: str, check: Check, answers: Sequence[Called]) -> int:
        """Which of several answers is the best: its place.

        Raises:
            NoVerdict: the judge failed; the run says so.
        """
        texts = [called.answer.text for called in answers if called.answer is not None]
        authors = [called.call.worker for called in answers]
        try:
            return await self._crew.checker.prefer(check, self.task, texts, authors=authors, ask=self._asker(step))
        except NoVerdict as error:
            self.note_unchecked(step, authors[0], error)
            raise

    def _asker(self, step: str) -> Ask:
        """What a check asks its workers through: steps of their own, and nobody is asked the same twice."""
        asked = 0

        async def ask(worker: WorkerId, task: Task) -> Answer:
            nonlocal asked
            asked += 1
            known = self._asked.get((worker, task.digest))
            if known is None:
                called = await self.ask(f"{step}.{asked}", (worker,), task)
                assert called.answer is not None
                known = self._asked[worker, task.digest] = called.answer
            return known

        return ask

    async def _ask_one(self, step: str, worker: Worker, task: Task, *, is_last: bool) -> Called:
        async with self._purse.reserve(worker, task) as hold:
            if worker.has_effects and self._journal is not None and not await self._journal.begin(step, worker.id):
                hold.is_unused = True
                raise InDoubt(self._execution.decision.id, step=step, worker=worker.id)
            live, began = LiveCall(worker), asyncio.get_running_loop().time()
            try:
                called = await self._make(live, hold.task, is_last=is_last)
            except asyncio.CancelledError:  # what was sent is read, and paid
                waited = asyncio.get_running_loop().time() - began
                left = live.called or self._crew.caller.abandon(worker, hold.task, latency_s=waited)
                hold.call = replace(left.call, step=step)
                self._execution.calls.append(hold.call)
                raise
            hold.call = called.call
        if called.answer is not None and len(called.answer.text) > LONGEST_ANSWER:
            error = BadAnswer(f"{worker.id!r} answered {len(called.answer.text)} characters", worker=worker.id)
            called = Called(call=called.call, answer=None, error=error)
        called = replace(called, call=replace(called.call, step=step))
        self._execution.calls.append(called.call)
        return called

    async def _make(self, live: LiveCall, task: Task, *, is_last: bool) -> Called:
        if is_last and self._sink is not None:
            return await self._stream(live, task, self._sink)
        return await self._crew.caller.call(live.worker, task, attempts=1 if live.worker.has_effects else ATTEMPTS)

    async def _stream(self, live: LiveCall, task: Task, sink: Sink) -> Called:
        self._execution.serving = live.worker.id
        pieces = self._crew.caller.stream(live, task)
        try:
            async for piece in pieces:
                self.has_streamed = True
                await sink(piece)
        except ProviderError:
            pass  # told in the result
        finally:  # the run may be cancelled while the sink is full
            await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
        return live.result()

    async def _approve(self, step: str, worker: Worker, task: Task) -> None:
        """Return if a human has agreed to exactly this call."""
        digest = digest_proposal(worker, task, self.task)
        question = f"May {worker.id} be called with this?"
        resolved = await self._wait_for_human(step, digest, worker.id, arguments=task.text, question=question)
        if not resolved.is_approved:
            run = self._execution.decision.id
            raise ApprovalDenied(run, step=step, by=resolved.by, reason=resolved.reason)

    async def _ask_human(self, step: str, check: Human, answer: Answer, *, author: WorkerId) -> Verdict:
        digest = digest_proposal(self.pool[author], Task.from_text(answer.text), self.task)
        resolved = await self._wait_for_human(step, digest, author, arguments=answer.text, question=check.question)
        if resolved.by == EXPIRY:
            raise NoVerdict(f"no human answered within {APPROVAL_S / 3600:.0f} h", verifier="human")
        return Verdict(
            verifier=f"human:{resolved.by}", quality=float(resolved.is_approved), detail=resolved.reason or "looked at"
        )

    async def _wait_for_human(
        self, step: str, digest: str, worker: WorkerId, *, arguments: str, question: str
    ) -> Resolved:
        """What a human said; the run is put aside where nobody has said anything yet."""
        run = self._execution.decision.id
        if self._journal is None:
            raise ConfigError(
                f"{worker!r} needs approval, and runs are not durable here",
                key="ledger.durable_runs",
                hint="set it to true",
            )
        resolved = self._journal.find_resolution(step, digest)
        if resolved is not None:
            return resolved
        expires_at = self._journal.now() + APPROVAL_S
        proposed = await self._journal.propose(
            Proposed(
                run=run,
                step=step,
                digest=digest,
                worker=worker,
                arguments=arguments,
                question=question,
                expires_at=expires_at,
            )
        )
        if self._journal.now() < proposed.expires_at:
            raise ApprovalPending(run, step=step, worker=worker, expires_at=proposed.expires_at)
        return await self._journal.resolve(proposed.expire())

    async def _record(self, done: Stepped) -> None:
        if self._journal is not None:
            await self._journal.record(replace(done, run=self._execution.decision.id))


def _take_team(workers: Sequence[WorkerId], pool: Pool) -> list[Worker]:
    """Who is asked at one step, in order: nobody stands in for a worker that changes something, nor it for others."""
    present = [pool[worker] for worker in dict.fromkeys(workers) if worker in pool]
    if present and present[0].id == workers[0] and present[0].has_effects:
        return present[:1]
    return [worker for worker in present if worker.id == workers[0] or not worker.is_careful]


def digest_proposal(worker: Worker, asked: Task, whole: Task) -> str:
    """What a human agrees to: the worker in its version, what it is given, and the task that it belongs to."""
    packed = f"{worker.id}\x1f{worker.version}\x1f{asked.digest}\x1f{whole.digest}"
    return hashlib.sha256(packed.encode()).hexdigest()
