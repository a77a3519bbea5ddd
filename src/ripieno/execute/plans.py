"""Plan: typed steps, side by side where none sees the other."""

import asyncio

from ripieno.domain import Op, Plan, Pool, Step, Verdict, WorkerId
from ripieno.errors import InvalidPlan
from ripieno.execute.prompts import make_step, read_verdict
from ripieno.execute.steps import Steps
from ripieno.providers import Called


def check_plan(plan: Plan, pool: Pool) -> None:
    """Find out whether a plan can be carried out by a pool.

    Raises:
        InvalidPlan: a worker is unknown, or is asked for what it cannot do.
    """
    for place, step in enumerate(plan.steps, start=1):
        if step.worker not in pool:
            raise InvalidPlan(
                f"no worker is called {step.worker!r}", step=place, hint=f"workers: {', '.join(pool.ids)}"
            )
        if not can_do(pool, step.worker, step.op):
            raise InvalidPlan(f"{step.worker!r} executes nothing, and is asked to run something", step=place)


def can_do(pool: Pool, worker: WorkerId, op: Op) -> bool:
    """Whether a worker may take a step."""
    return op is not Op.RUN or pool[worker].can_run


async def run_plan(plan: Plan, steps: Steps) -> Called:
    """Carry out a plan; the answer is the last step's result, or the one that a verifying step accepts."""
    check_plan(plan, steps.pool)
    return await _PlanRun(plan, steps).carry_out()


class _PlanRun:
    """One plan under way: each step begins once what it sees is there, and none after an answer is accepted."""

    def __init__(self, plan: Plan, steps: Steps) -> None:
        self._plan = plan
        self._steps = steps
        self._results: dict[int, Called] = {}
        self._texts: dict[int, str] = {}
        self._accepted: Called | None = None

    async def carry_out(self) -> Called:
        waiting = dict(enumerate(self._plan.steps))
        running: dict[asyncio.Task[None], int] = {}
        try:
            while (waiting or running) and self._accepted is None:
                for place in [place for place, step in waiting.items() if self._is_ready(place, step)]:
                    running[asyncio.create_task(self._make(place, waiting.pop(place)))] = place
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    running.pop(each)
                    each.result()
        finally:
            for each in running:
                each.cancel()
            if running:
                await asyncio.wait(running)
        return self._accepted or self._results[len(self._plan.steps) - 1]

    def _is_ready(self, place: int, step: Step) -> bool:
        """Whether all that a step sees is there, and no check that stands before it is still under way."""
        if any(index not in self._texts for index in step.access):
            return False
        gates = (index for index in range(place) if self._plan.steps[index].op is Op.VERIFY)
        return all(index in self._texts for index in gates)

    async def _make(self, place: int, step: Step) -> None:
        task = self._steps.task
        pool = self._steps.pool
        texts = [self._texts.get(index, "") for index in range(place)]
        if step.op is Op.VERIFY and pool[step.worker].is_tool:
            await self._recompute(place, step)
            return
        team = [step.worker, *(worker for worker in self._plan.fallbacks if self._may_stand_in(worker, step))]
        asked = make_step(step, task, texts, worker=pool[step.worker])
        is_last = place == len(self._plan.steps) - 1 and step.op is not Op.VERIFY
        called = await self._steps.ask(str(place + 1), team, asked, is_last=is_last, needs_approval=step.needs_approval)
        assert called.answer is not None
        if step.op is Op.VERIFY:
            accepts, fault = read_verdict(called.answer.text)
            verdict = Verdict(verifier=f"worker:{called.call.worker}", quality=float(accepts), detail=fault[:200])
            self._judge(place, step, verdict)
            return
        self._results[place], self._texts[place] = called, called.answer.text
        self._steps.keep(called, place / 10.0)

    async def _recompute(self, place: int, step: Step) -> None:
        """A tool verifies by doing the whole task itself: two that come to the same agree."""
        called = await self._steps.ask(str(place + 1), (step.worker,), self._steps.task)
        assert called.answer is not None
        found = self._results[step.access[-1]].answer
        assert found is not None
        reduce = self._steps.checker.reduce
        agrees = reduce(called.answer.text) == reduce(found.text)
        detail = "" if agrees else f"recomputed, it is {called.answer.text[:100]!r}"
        self._judge(place, step, Verdict(verifier=f"worker:{step.worker}", quality=float(agrees), detail=detail))

    def _judge(self, place: int, step: Step, verdict: Verdict) -> None:
        seen = step.access[-1]
        found = self._results[seen]
        self._steps.note(str(place + 1), found.call.worker, verdict)
        if verdict.quality >= 0.5:
            self._accepted = found
        self._results[place] = found
        self._texts[place] = "ACCEPT" if verdict.quality >= 0.5 else f"REVISE: {verdict.detail}"

    def _may_stand_in(self, worker: WorkerId, step: Step) -> bool:
        """Whether a worker can read the words that were made for the other: a tool a tool's, a model a model's."""
        pool = self._steps.pool
        if worker not in pool or worker == step.worker or not can_do(pool, worker, step.op):
            return False
        return pool[worker].is_tool == pool[step.worker].is_tool
