"""Router: a task and the current conditions to DecisionInputs, and DecisionInputs to a Decision."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ripieno.domain import (
    Arrival,
    Choice,
    Decision,
    DecisionInputs,
    Estimate,
    Features,
    Mask,
    Pool,
    RoutingSetup,
    Solo,
    Task,
    Worker,
    WorkerId,
    Workflow,
    list_named,
    list_workers,
    names_worker,
)
from ripieno.errors import InvalidPlan, InvalidTask, PredictorError
from ripieno.route.compose import WorkflowInputs, compose, workflow_as_worker
from ripieno.route.mask import Conditions, mask_workers
from ripieno.route.policies import Policy
from ripieno.route.predictors import Estimator, Forecast, PriorPredictor

log = logging.getLogger(__name__)

STAY_MARGIN = 0.05
"""Minimum utility gain for switching workers within a conversation. It covers the cost of a cold prompt cache."""
NAMED = "named"
"""Policy and predictor name that is recorded when the request names its worker."""
DRAWS = 3
"""Seeds of `decide_likeliest`. A policy explores on a few percent of the tasks only."""


class Predictor(Protocol):
    """Makes Estimates. Built-in and plugin predictors have the same interface."""

    @property
    def version(self) -> str:
        """Return the version, by which a replay finds the predictor."""
        ...

    def forecast(self, features: Features, workers: Sequence[Worker]) -> Forecast:
        """Estimate one task on each of `workers`, in order.

        Raises:
            PredictorError: it failed.
        """
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Router:
    """Decides tasks under one setup. The same inputs give the same decision, in service and in a replay."""

    setup: RoutingSetup
    predictor: Predictor
    """`publish` replaces it; each decision reads it once."""
    policy: Policy
    learned: Mapping[WorkerId, Workflow] = field(default_factory=dict)
    """Learned workflows of the checkpoint by name. The predictor estimates them like workers."""
    fault: PredictorError | None = None
    """The predictor's error on the latest task; None if it succeeded."""

    @property
    def estimator(self) -> Estimator | None:
        """Return the estimator that learns from outcomes; None if worker cards alone decide."""
        return self.predictor if isinstance(self.predictor, Estimator) else None

    def publish(self, estimator: Estimator) -> None:
        """Use an estimator that has learned more for all later decisions."""
        self.predictor = estimator

    def gather(self, task: Task, features: Features, conditions: Conditions, *, arrival: Arrival) -> DecisionInputs:
        """Gather the inputs of one decision.

        Raises:
            NoEligibleWorker: no worker may take the task; the error lists every reason.
            InvalidPlan: the caller's workflow names a worker that may not take the task.
        """
        pool, workflow = self.setup.pool, arrival.workflow
        sole = task.objective.sole
        if sole in pool and names_worker(task, workflow):
            pool = Pool((pool[str(sole)],))
        if workflow is not None:
            conditions = replace(conditions, named=frozenset(list_named(workflow)))
        mask = mask_workers(task, features, pool, conditions)
        if workflow is not None:
            require_eligible(workflow, mask)
        return DecisionInputs(
            id=arrival.id,
            seed=arrival.seed,
            task=task,
            features=features,
            mask=mask,
            setup=self.setup,
            load={worker: conditions.load[worker] for worker in mask.eligible if worker in conditions.load},
            incumbent=arrival.incumbent,
            check=arrival.check,
            workflow=workflow,
        )

    def decide(self, inputs: DecisionInputs) -> Decision:
        """Decide one task under the setup of the inputs, which may be older than the router's own.

        If the predictor fails, the worker cards decide, without learned workflows.

        Raises:
            InvalidTask: the workflow that the request asks for is not allowed, or cannot be composed.
        """
        if inputs.is_named:
            return _take_named(inputs)
        try:
            decision = self._decide_by(self.predictor, inputs, self._find_learned(inputs))
        except PredictorError as error:
            if self.fault is None:
                log.warning("worker cards decide until the predictor works again: %s", error.message)
            self.fault = error
            decision = self._decide_by(PriorPredictor(), inputs, {})
            return replace(decision, reasons=(*decision.reasons, f"the worker cards decide: {error.message}"))
        self.fault = None
        return decision

    def decide_likeliest(self, inputs: DecisionInputs) -> Decision:
        """Decide without exploration: return the likeliest of a few decisions."""
        drawn = [self.decide(replace(inputs, seed=seed)) for seed in range(DRAWS)]
        return max(drawn, key=lambda decision: decision.propensity)

    def _decide_by(
        self, predictor: Predictor, inputs: DecisionInputs, learned: Mapping[WorkerId, Workflow]
    ) -> Decision:
        """Decide one task by the estimates of one predictor.

        Raises:
            PredictorError: the predictor failed.
        """
        forecast = _forecast(predictor, inputs, learned)
        features = replace(inputs.features, kind=forecast.kind)
        rng = np.random.default_rng(inputs.seed)
        choice = self.policy.decide(features, forecast.estimates, objective=inputs.task.objective, rng=rng)
        choice, name = split_workflow(choice, learned)
        if name is None:
            choice = prefer_incumbent(choice, inputs.incumbent, must_stay=inputs.task.messages[-1].role == "tool")
            workflow = _compose(inputs, choice, forecast.estimates)
        else:
            workflow = with_fallbacks(learned[name], choice.order)
        return Decision(
            id=inputs.id,
            workflow=workflow,
            learned_workflow=name,
            propensity=choice.propensity,
            policy=self.policy.name,
            policy_facts=self.policy.facts,
            predictor=predictor.version,
            objective=inputs.task.objective,
            mask=inputs.mask,
            estimates=forecast.estimates,
            utilities=choice.utilities,
            reasons=(*choice.reasons, *_list_unknown(forecast.estimates)),
            seed=inputs.seed,
            kind=forecast.kind,
            load=inputs.load,
            incumbent=inputs.incumbent,
            advice=dict(forecast.advice),
            abstains=choice.abstains,
            inputs=inputs.record(workflow),
        )

    def _find_learned(self, inputs: DecisionInputs) -> Mapping[WorkerId, Workflow]:
        """Find the learned workflows that the policy may choose for this request; all members are eligible."""
        if not self.learned or not inputs.setup.chooses_workflows:
            return {}
        if inputs.task.objective.mode is not None or inputs.workflow is not None or inputs.task.tools:
            return {}
        eligible = set(inputs.mask.eligible)
        return {name: flow for name, flow in self.learned.items() if set(list_workers(flow)) <= eligible}


def _take_named(inputs: DecisionInputs) -> Decision:
    """Choose the only allowed worker, without estimates."""
    worker, objective = inputs.mask.eligible[0], inputs.task.objective
    why = "the worker that the request names" if objective.workers else "the only worker that may be used"
    workflow = Solo(worker=worker)
    return Decision(
        id=inputs.id,
        workflow=workflow,
        propensity=1.0,
        policy=NAMED,
        policy_facts={},
        predictor=NAMED,
        objective=objective,
        mask=inputs.mask,
        estimates=(),
        utilities={},
        reasons=(f"{worker} is {why}",),
        seed=inputs.seed,
        kind=inputs.features.kind,
        inputs=inputs.record(workflow),
    )


def _forecast(predictor: Predictor, inputs: DecisionInputs, learned: Mapping[WorkerId, Workflow]) -> Forecast:
    """Estimate the eligible workers and the learned workflows, with the wait at full workers."""
    eligible = frozenset(inputs.mask.eligible)
    considered = [worker for worker in inputs.setup.pool if worker.id in eligible]
    forecast = predictor.forecast(inputs.features, [*considered, *map(workflow_as_worker, learned)])
    if not inputs.load:
        return forecast
    waiting = (add_waiting(estimate, inputs.load.get(estimate.worker, 0.0)) for estimate in forecast.estimates)
    return replace(forecast, estimates=tuple(waiting))


def _compose(inputs: DecisionInputs, choice: Choice, estimates: Sequence[Estimate]) -> Workflow:
    """Make the workflow that the request names from the policy's order."""
    mode = inputs.task.objective.mode
    if inputs.workflow is not None:
        return inputs.workflow
    if mode is None or choice.abstains:
        return Solo(worker=choice.order[0], fallbacks=choice.order[1:])
    if mode not in inputs.setup.modes:
        raise InvalidTask(
            f"the workflow {mode.value!r} is not allowed here",
            param="ripieno.workflow",
            hint="add it to route.modes",
        )
    return compose(
        mode,
        WorkflowInputs(
            task=inputs.task,
            pool=inputs.setup.pool,
            order=choice.order,
            estimates=estimates,
            check=inputs.check,
            judge=inputs.setup.judge,
            masked=inputs.mask.masked,
        ),
    )


def _list_unknown(estimates: Sequence[Estimate]) -> tuple[str, ...]:
    """List the workers without outcomes and those of unknown price, in words."""
    unmeasured = [e.worker for e in estimates if not e.is_measured]
    unpriced = [e.worker for e in estimates if e.cost_usd is None]
    return (
        *([f"not measured yet: {', '.join(unmeasured)}"] if unmeasured else ()),
        *([f"price unknown, ranked as the most expensive: {', '.join(unpriced)}"] if unpriced else ()),
    )


def split_workflow(choice: Choice, learned: Mapping[WorkerId, Workflow]) -> tuple[Choice, WorkerId | None]:
    """Return the choice without learned workflows, and the name of the learned workflow that was chosen, if any."""
    if not learned:
        return choice, None
    name = choice.order[0] if choice.order[0] in learned else None
    return replace(choice, order=tuple(worker for worker in choice.order if worker not in learned)), name


def with_fallbacks(workflow: Workflow, order: Sequence[WorkerId]) -> Workflow:
    """Return a learned workflow with the policy's other workers as its fallbacks."""
    members = set(list_workers(workflow))
    return replace(workflow, fallbacks=tuple(worker for worker in order if worker not in members))


def require_eligible(workflow: Workflow, mask: Mask) -> None:
    """Refuse a workflow that calls a worker which may not take the task.

    Raises:
        InvalidPlan: the workflow names such a worker.
    """
    for worker in list_workers(workflow):
        if worker not in mask.eligible:
            why = mask.masked.get(worker)
            problem = (
                f"{worker!r} may not take the task: {why.reason}, {why.detail}" if why else f"no worker {worker!r}"
            )
            raise InvalidPlan(problem, hint="`ripieno route` lists the eligible workers")


def prefer_incumbent(choice: Choice, incumbent: WorkerId | None, *, must_stay: bool) -> Choice:
    """Keep the worker of a conversation, whose cache holds the earlier turns, unless another is clearly better.

    Args:
        choice: the policy's choice.
        incumbent: the worker of the earlier turns, if any.
        must_stay: True if the last message is a tool result. The worker that made the tool call must then answer.
    """
    if incumbent is None or incumbent not in choice.order or choice.abstains:
        return choice
    lead = max(choice.utilities.values(), default=0.0) - choice.utilities.get(incumbent, -math.inf)
    if not must_stay and not lead <= STAY_MARGIN:
        return choice
    order = (incumbent, *(worker for worker in choice.order if worker != incumbent))
    why = f"{incumbent} has answered the conversation so far"
    return replace(choice, order=order, propensity=1.0, reasons=(why, *choice.reasons))


def add_waiting(estimate: Estimate, load: float) -> Estimate:
    """Add the wait at a full worker: each round of earlier calls takes as long as this call.

    Args:
        estimate: the estimate without waiting.
        load: running and waiting calls, divided by the concurrency limit; below 1 there is no waiting.
    """
    if not load >= 1.0:
        return estimate
    first = None if estimate.first_token_s is None else estimate.first_token_s + load * estimate.latency_s
    return replace(estimate, latency_s=estimate.latency_s * (1.0 + load), first_token_s=first)


ConditionsSource = Callable[[], Conditions]
