"""Plan: typed steps, concurrent where they do not depend on each other."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from ripieno.domain import Op, Plan, Pool, Step, Verdict, WorkerId
from ripieno.errors import InvalidPlan, NoVerdict
from ripieno.execute.prompts import make_step, read_verdict
from ripieno.execute.steps import Steps
from ripieno.providers import CallAnswered


def check_step(step: Step, place: int, pool: Pool) -> None:
    """Check that a pool can do a step.

    Raises:
        InvalidPlan: the step's worker is unknown, or cannot do the operation.
    """
    if step.worker not in pool:
        hint = f"workers: {', '.join(pool.ids)}"
        raise InvalidPlan(f"there is no worker {step.worker!r}", step=place + 1, hint=hint)
    if not can_do(pool, step.worker, step.op):
        raise InvalidPlan(f"{step.worker!r} cannot execute code, and its step is `run`", step=place + 1)


def can_do(pool: Pool, worker: WorkerId, op: Op) -> bool:
    """Return whether a worker can do an operation."""
    return op is not Op.RUN or pool[worker].can_run


async def run_plan(plan: Plan, steps: Steps) -> CallAnswered:
    """Run a plan. The answer is the last step's result, or the one that a verifying step accepts.

    Raises:
        InvalidPlan: the pool cannot do one of its steps. No worker was called.
    """
    for place, step in enumerate(plan.steps):
        check_step(step, place, steps.pool)
    return await _PlanRun(plan, steps).carry_out()


LATER = 1000.0
"""Divides the place of an answer into a quality, so that the later of two unchecked answers ranks higher."""


def is_whole(step: Step) -> bool:
    """Return whether a step answers the whole task, not a part of it."""
    return step.op in (Op.SOLVE, Op.MERGE) and not step.text


class StepMaker:
    """Does single steps, and keeps the result of each.

    Args:
        is_answer: whether the result of a step, at its place, answers the whole task. All others lead to an answer.
    """

    def __init__(
        self, steps: Steps, fallbacks: Sequence[WorkerId] = (), *, is_answer: Callable[[int, Step], bool]
    ) -> None:
        self._steps = steps
        self._fallbacks = fallbacks
        self._is_answer = is_answer
        self.results: dict[int, CallAnswered] = {}
        """Result of each step, by its place; of a verifying step, the checked answer."""
        self.texts: dict[int, str] = {}
        """Text of each step that later steps see, by its place."""
        self.accepted: CallAnswered | None = None
        """The answer that a verifying step accepted."""
        self.refused: set[int] = set()
        """Places of the verifying steps that refused an answer."""

    async def make(self, place: int, step: Step, *, is_last: bool = False) -> CallAnswered:
        """Do one step. A verifying step returns the answer that it checked.

        Args:
            place: place of the step, from 0.
            step: the step; the steps it depends on are done.
            is_last: whether its result is certain to be the answer.
        """
        task, pool = self._steps.task, self._steps.pool
        if step.op is Op.VERIFY and pool[step.worker].is_tool:
            return await self._recompute(place, step)
        texts = [self.texts.get(index, "") for index in range(place)]
        team = [step.worker, *(worker for worker in self._fallbacks if self._may_replace(worker, step))]
        asked = make_step(step, task, texts, worker=pool[step.worker])
        called = await self._steps.ask(str(place + 1), team, asked, is_last=is_last, needs_approval=step.needs_approval)
        if step.op is Op.VERIFY:
            return self._take_verdict(place, step, called)
        self.results[place], self.texts[place] = called, called.answer.text
        if self._is_answer(place, step):
            self._steps.keep(called, place / LATER)
        return called

    def _take_verdict(self, place: int, step: Step, called: CallAnswered) -> CallAnswered:
        """Read the verdict of a verifying worker. Without a verdict, the answer is neither accepted nor refused."""
        name, found = f"worker:{called.call.worker}", self.results[step.access[-1]]
        read = read_verdict(called.answer.text)
        if read is None:
            fault = NoVerdict(f"{called.call.worker!r} said neither ACCEPT nor REVISE", verifier=name)
            self._steps.add_unchecked(str(place + 1), found.call.worker, fault)
            self.results[place], self.texts[place] = found, "NOT CHECKED: no verdict was given"
            return found
        accepts, detail = read
        return self._judge(place, step, Verdict(verifier=name, quality=float(accepts), detail=detail[:200]))

    async def _recompute(self, place: int, step: Step) -> CallAnswered:
        """Verify with a tool: it does the whole task itself, and equal results agree."""
        called = await self._steps.ask(str(place + 1), (step.worker,), self._steps.task)
        found, reduce = self.results[step.access[-1]], self._steps.checker.reduce
        agrees = reduce(called.answer.text) == reduce(found.answer.text)
        detail = "" if agrees else f"recomputed, it is {called.answer.text[:100]!r}"
        return self._judge(place, step, Verdict(verifier=f"worker:{step.worker}", quality=float(agrees), detail=detail))

    def _judge(self, place: int, step: Step, verdict: Verdict) -> CallAnswered:
        seen = step.access[-1]
        found = self.results[seen]
        self._steps.add_finding(str(place + 1), found.call, verdict)
        if verdict.quality >= 0.5:
            self.accepted = found
            self._steps.keep(found, 1.0)
        else:
            self.refused.add(place)
        self.results[place] = found
        self.texts[place] = "ACCEPT" if verdict.quality >= 0.5 else f"REVISE: {verdict.detail}"
        return found

    def _may_replace(self, worker: WorkerId, step: Step) -> bool:
        """Return whether a worker can read the other's prompt: a tool that of a tool, a model that of a model."""
        pool = self._steps.pool
        if worker not in pool or worker == step.worker or not can_do(pool, worker, step.op):
            return False
        return pool[worker].is_tool == pool[step.worker].is_tool


class _PlanRun:
    """One running plan. Each step starts once its inputs are there, and none after an answer is accepted."""

    def __init__(self, plan: Plan, steps: Steps) -> None:
        self._plan = plan
        self._answers = frozenset(_find_answers(plan))
        self._maker = StepMaker(steps, plan.fallbacks, is_answer=lambda place, _: place in self._answers)

    async def carry_out(self) -> CallAnswered:
        maker, last = self._maker, len(self._plan.steps) - 1
        waiting = dict(enumerate(self._plan.steps))
        running: set[asyncio.Task[CallAnswered]] = set()
        try:
            while (waiting or running) and maker.accepted is None:
                for place in [place for place, step in waiting.items() if self._is_ready(place, step)]:
                    step = waiting.pop(place)
                    is_last = place == last and step.op is not Op.VERIFY
                    running.add(asyncio.create_task(maker.make(place, step, is_last=is_last)))
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
        finally:
            for each in running:
                each.cancel()
            if running:
                await asyncio.wait(running)
        return maker.accepted or maker.results[last]

    def _is_ready(self, place: int, step: Step) -> bool:
        """Return whether all inputs of a step are there, and no earlier check is still running."""
        texts = self._maker.texts
        if any(index not in texts for index in step.access):
            return False
        gates = (index for index in range(place) if self._plan.steps[index].op is Op.VERIFY)
        return all(index in texts for index in gates)


def _find_answers(plan: Plan) -> Iterator[int]:
    """Yield the places whose results are answers: the last step's, and those that a verifying step may accept.

    What a verifying last step checks is returned whatever its verdict. Any other must be an answer to the whole task.
    """
    last = len(plan.steps) - 1
    yield last
    for place, step in enumerate(plan.steps):
        if step.op is not Op.VERIFY:
            continue
        seen = step.access[-1]
        if place == last or is_whole(plan.steps[seen]):
            yield seen
