"""Planner: completes a decision before its run starts, with a plan or with a director of its turns."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ripieno.analyze import Analyzer
from ripieno.conductor.base import Brief, Conductor, Directors, Roster, WrittenPlan
from ripieno.domain import Call, Decision, Mode, Pool, Task, Turns, Worker
from ripieno.errors import BudgetExhausted, ConfigError, UnknownPrice
from ripieno.execute import CallRecorder, Director, RunBudget
from ripieno.providers import Caller, CallResult
from ripieno.route.router import require_eligible


class Planner:
    """Gets plans from conductors, and directors for runs of turns."""

    def __init__(
        self, analyzer: Analyzer, caller: Caller, conductors: Mapping[Mode, Conductor], directors: Directors | None
    ) -> None:
        self._analyzer = analyzer
        self._caller = caller
        self._conductors = conductors
        self._directors = directors

    async def attach_plan(
        self, decision: Decision, task: Task, pool: Pool, *, budget: RunBudget, recorder: CallRecorder
    ) -> Decision:
        """Replace the chosen worker by a written plan. Without a valid plan, the worker stays."""
        conductor = self._conductors.get(task.objective.mode or Mode.SOLO)
        if conductor is None or decision.abstains:
            return decision
        made: list[Call] = []

        async def call(worker: Worker, asked: Task) -> CallResult:
            result = await budget.call(self._caller, worker, asked)
            made.append(result.call)
            return result

        try:
            written = await conductor.write(replace(await self._make_brief(decision, task, pool), call=call))
        except (BudgetExhausted, UnknownPrice) as error:
            written = WrittenPlan(plan=None, calls=tuple(made), fault=error.message)
        recorder.record(*(replace(each, step="plan") for each in written.calls))
        if written.plan is None:
            reason = f"no plan was written, {decision.worker} answers alone: {written.fault}"
            return replace(decision, reasons=(reason, *decision.reasons))
        require_eligible(written.plan, decision.mask)
        reason = f"{written.plan.author} wrote a plan of {len(written.plan.steps)} steps"
        return replace(decision, workflow=written.plan, reasons=(reason, *decision.reasons))

    async def attach_director(self, decision: Decision, task: Task, pool: Pool) -> tuple[Decision, Director | None]:
        """Give a run of turns its director.

        Raises:
            ConfigError: the workflow is one of turns, and there is no director.
        """
        workflow, directors = decision.workflow, self._directors
        if not isinstance(workflow, Turns):
            return decision, None
        if directors is None:
            raise ConfigError("no director of turns is configured", key="conductor.head", hint="use --workflow plan")
        director = await directors.direct(await self._make_brief(decision, task, pool))
        return replace(decision, workflow=replace(workflow, author=directors.version)), director

    async def _make_brief(self, decision: Decision, task: Task, pool: Pool) -> Brief:
        estimates = {estimate.worker: estimate for estimate in decision.estimates}
        models = [worker for worker in decision.mask.eligible if not pool[worker].is_tool]
        return Brief(
            task=task,
            features=await self._analyzer.analyze(task),
            roster=Roster.draw(pool, decision.mask.eligible, np.random.default_rng(decision.seed)),
            estimates=estimates,
            author=max(models, key=lambda worker: estimates[worker].quality, default=None),
        )
