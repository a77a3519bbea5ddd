"""Execution: one run in the making."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from ripieno.domain import (
    Account,
    Call,
    Decision,
    Finding,
    Origin,
    Run,
    Solo,
    Task,
    Unchecked,
    Verdict,
    WorkerId,
    sum_costs,
)
from ripieno.errors import BudgetExhausted, DeadlineExceeded, ProviderError
from ripieno.execute.director import Director
from ripieno.providers import Called


@dataclass(slots=True)
class Execution:
    """A run in the making; `run` is its record so far."""

    decision: Decision
    task: Task
    key: str | None = None
    """Id of the virtual key that pays."""
    account: Account | None = None
    """What holds the key's money back for each call; None where no key pays."""
    limited_tokens: int | None = None
    """Longest answer, in tokens, that the latest call was allowed for its budget's sake; None where it was not cut."""
    is_claimed: bool = False
    """Whether the ledger waits for its end."""
    director: Director | None = None
    """Who chooses the steps, where the workflow is one of turns."""
    calls: list[Call] = field(default_factory=list)
    called: Called | None = None
    findings: list[Finding] = field(default_factory=list)
    judged: dict[str, Verdict] = field(default_factory=dict)
    """What was found last about the answer of a step, by the name of that step."""
    unchecked: list[Unchecked] = field(default_factory=list)
    serving: str | None = None
    """The worker that is answering, while a stream runs."""
    ended_early: str | None = None
    """Why the workflow was not carried through, where it gave what it had."""
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """The loop's time when the decision was there."""
    wall_s: float | None = None
    """Time that the whole workflow took, once it is over; a single worker's is that of its calls."""

    @property
    def is_solo(self) -> bool:
        """Whether one worker after the other is asked, and that is all."""
        return isinstance(self.decision.workflow, Solo)

    @property
    def run(self) -> Run:
        """The run as it stands, as it is recorded."""
        answer = self.called.answer if self.called is not None else None
        if answer is not None and answer.wire:
            answer = replace(answer, wire=b"")
        return Run(
            id=self.decision.id,
            task=self.task.digest,
            origin=Origin.TRAFFIC,
            calls=tuple(self.calls),
            answer=answer,
            decision=self.decision.id,
            key=self.key,
            workflow=type(self.decision.workflow).__name__.lower(),
            mode=self.decision.mode,
            author=None if self.is_solo and self.calls else self.author,
            findings=tuple(self.findings),
            unchecked=tuple(self.unchecked),
            ended_early=self.ended_early,
            wall_s=self.wall_s,
        )

    @property
    def author(self) -> WorkerId:
        """Whose answer it is; the first one to ask, as long as there is none."""
        return self.called.call.worker if self.called is not None else self.decision.worker

    @property
    def verdict(self) -> Verdict | None:
        """What the workflow itself found about the answer that it gave; None where nothing checked it."""
        return self.judged.get(self.called.call.step) if self.called is not None else None

    @property
    def cost_usd(self) -> float:
        """Known part of the price of all calls so far, in US dollars."""
        return sum_costs([call.cost_usd for call in self.calls])[0]

    @property
    def price_usd(self) -> float | None:
        """Price of all calls so far, in US dollars; None where any is unknown."""
        known, unknown = sum_costs([call.cost_usd for call in self.calls])
        return None if unknown else known

    @property
    def tokens(self) -> int:
        """Tokens in and out of all calls so far."""
        return sum(call.tokens for call in self.calls)

    @property
    def error(self) -> ProviderError | None:
        """Why there is no answer."""
        return self.called.error if self.called is not None else None

    @property
    def limit_s(self) -> float | None:
        """Seconds that the task may take from its arrival on."""
        deadline, seconds = self.task.objective.deadline_s, self.task.budget.seconds
        if deadline is None or seconds is None:
            return seconds if deadline is None else deadline
        return min(deadline, seconds)


@asynccontextmanager
async def in_time(execution: Execution) -> AsyncIterator[None]:
    """Hold the deadline, counted from the task's arrival, and the budget's time.

    Raises:
        DeadlineExceeded: the deadline passed.
        BudgetExhausted: the budget's time ended before it.
    """
    deadline, limit = execution.task.objective.deadline_s, execution.limit_s
    if limit is None:
        yield
        return
    try:
        async with asyncio.timeout_at(execution.began + limit - execution.decision.decide_s):
            yield
    except TimeoutError as error:
        if limit == deadline:
            raise DeadlineExceeded(limit) from error
        raise BudgetExhausted("time (s)", spent=limit, limit=limit) from error
