"""Router: Features and Pool to a Decision."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ripieno.domain import (
    Account,
    Choice,
    Clock,
    Decision,
    Estimate,
    Features,
    Mask,
    Mode,
    Pool,
    Solo,
    Task,
    Worker,
    WorkerId,
    Workflow,
    list_named,
    list_workers,
)
from ripieno.domain.grader import Check
from ripieno.domain.memory import Scope
from ripieno.errors import InvalidPlan, InvalidTask, PredictorError
from ripieno.route.mask import Conditions, mask_workers
from ripieno.route.modes import Cast, compose, make_stand_in
from ripieno.route.policies import Policy
from ripieno.route.predictors import Estimator, Forecast, PriorPredictor

log = logging.getLogger(__name__)

STAY_MARGIN = 0.05
"""Utility that a change of workers within a conversation must gain: what it costs to read the earlier turns anew."""
NAMED = "named"
"""What stands for policy and predictor where the request names its worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """Which workflows may be asked for, and who judges in them."""

    allowed: frozenset[Mode] = frozenset(Mode)
    judge: WorkerId | None = None
    learned: Mapping[WorkerId, Workflow] = field(default_factory=dict)
    """Workflows that the predictor estimates beside the workers, and may be chosen unasked."""


class Predictor(Protocol):
    """Makes Estimates. Built-in and plugin predictors fill the same role."""

    @property
    def version(self) -> str:
        """Names what estimated, so that a replay finds it."""
        ...

    def forecast(self, features: Features, workers: Sequence[Worker]) -> Forecast:
        """Estimate one task on each of `workers`, in order.

        Raises:
            PredictorError: it cannot.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """When a task came in, and under what name and seed it is decided."""

    id: str
    seed: int
    started: float
    """The clock's monotonic time at arrival."""
    incumbent: WorkerId | None = None
    """The worker that has answered the earlier turns of the same conversation."""
    key: str | None = None
    """Id of the virtual key that pays."""
    account: Account | None = None
    """What holds the key's money back for each call; None where no key pays."""
    check: Check | None = None
    """How the request says that answers can be checked."""
    workflow: Workflow | None = None
    """The workflow, where the caller wrote it himself."""
    memory: Scope | None = None
    """Whose memory is read before, and written after; None leaves memory out."""
    thread: str = ""
    """The conversation that the task belongs to, as memory keeps it."""


class Router:
    """Mask, estimate, decide: one pure step, replayed with the same seed to the same decision."""

    def __init__(self, *, predictor: Predictor, policy: Policy, clock: Clock, modes: Modes | None = None) -> None:
        self._modes = modes or Modes()
        self.predictor = predictor
        self.fault: PredictorError | None = None
        """Why the predictor could not estimate the latest task; None where it could."""
        self.policy = policy
        self._clock = clock

    def decide(
        self, task: Task, features: Features, pool: Pool, conditions: Conditions, *, arrival: Arrival
    ) -> Decision:
        """Decide one task.

        Raises:
            NoEligibleWorker: the mask is empty.
        """
        sole = task.objective.sole
        if sole is not None and sole in pool and task.objective.mode in (None, Mode.SOLO) and arrival.workflow is None:
            mask = mask_workers(task, features, Pool((pool[sole],)), conditions)
            return self._take_named(task, mask, arrival)
        if arrival.workflow is not None:
            conditions = replace(conditions, named=frozenset(list_named(arrival.workflow)))
        mask = mask_workers(task, features, pool, conditions)
        if arrival.workflow is not None:
            require_eligible(arrival.workflow, mask)
        learned = self._find_learned(task, mask, arrival)
        predictor, forecast = self._forecast(features, [pool[worker] for worker in mask.eligible], learned)
        if predictor is not self.predictor:
            learned = {}
        estimates = forecast.estimates
        load = {worker: conditions.load[worker] for worker in mask.eligible if worker in conditions.load}
        if load:
            estimates = tuple(add_waiting(estimate, load.get(estimate.worker, 0.0)) for estimate in estimates)
        kind = forecast.kind
        features = replace(features, kind=kind)
        rng = np.random.default_rng(arrival.seed)
        choice = self.policy.decide(features, estimates, objective=task.objective, rng=rng)
        unmeasured = [e.worker for e in estimates if not e.is_measured]
        choice, mode = take_mode(choice, learned)
        if mode is None:
            choice = stay(choice, arrival.incumbent, is_bound=task.messages[-1].role == "tool")
        reasons = choice.reasons
        if unmeasured:
            reasons = (*reasons, f"not measured yet: {', '.join(unmeasured)}")
        if self.fault is not None:
            reasons = (*reasons, f"the worker cards decide: {self.fault.message}")
        unpriced = [e.worker for e in estimates if e.cost_usd is None]
        if unpriced:
            reasons = (*reasons, f"price unknown, ranked as the most expensive: {', '.join(unpriced)}")
        cast = Cast(task=task, pool=pool, order=choice.order, estimates=estimates, masked=mask.masked)
        return Decision(
            id=arrival.id,
            workflow=self._compose(cast, choice, arrival) if mode is None else hand_over(learned[mode], choice.order),
            mode=mode,
            propensity=choice.propensity,
            policy=self.policy.name,
            policy_facts=self.policy.facts,
            predictor=predictor.version,
            objective=task.objective,
            mask=mask,
            estimates=estimates,
            utilities=choice.utilities,
            reasons=reasons,
            seed=arrival.seed,
            kind=kind,
            load=load,
            incumbent=arrival.incumbent,
            advice=dict(forecast.advice),
            abstains=choice.abstains,
            decide_s=self._clock.monotonic() - arrival.started,
        )

    @property
    def estimator(self) -> Estimator | None:
        """What learns from outcomes; None where worker cards alone decide."""
        return self.predictor if isinstance(self.predictor, Estimator) else None

    def _forecast(
        self, features: Features, workers: Sequence[Worker], learned: Mapping[WorkerId, Workflow]
    ) -> tuple[Predictor, Forecast]:
        """Estimate by the predictor; where it fails, by the worker cards, which know no learned workflow."""
        try:
            forecast = self.predictor.forecast(features, [*workers, *map(make_stand_in, learned)])
        except PredictorError as error:
            if self.fault is None:
                log.warning("worker cards decide until the predictor works again: %s", error.message)
            self.fault = error
            prior = PriorPredictor()
            return prior, prior.forecast(features, workers)
        self.fault = None
        return self.predictor, forecast

    def _find_learned(self, task: Task, mask: Mask, arrival: Arrival) -> dict[WorkerId, Workflow]:
        """Workflows that may be chosen unasked: no other is asked for, and all who are in them may take the task."""
        if task.objective.mode is not None or arrival.workflow is not None or task.tools:
            return {}
        eligible = set(mask.eligible)
        return {name: flow for name, flow in self._modes.learned.items() if set(list_workers(flow)) <= eligible}

    def _compose(self, cast: Cast, choice: Choice, arrival: Arrival) -> Workflow:
        """What the caller asks for, made of the policy's order."""
        mode = cast.task.objective.mode
        if arrival.workflow is not None:
            return arrival.workflow
        if mode is None or choice.abstains:
            return cast.solo
        if mode not in self._modes.allowed:
            raise InvalidTask(
                f"the workflow {mode.value!r} is not allowed here",
                param="ripieno.workflow",
                hint="add it to route.modes",
            )
        return compose(mode, replace(cast, check=arrival.check, judge=self._modes.judge))

    def _take_named(self, task: Task, mask: Mask, arrival: Arrival) -> Decision:
        """The one worker that the request names: nothing is estimated, as nothing depends on it."""
        worker = mask.eligible[0]
        why = "the worker that the request names" if task.objective.workers else "the only worker that may be used"
        return Decision(
            id=arrival.id,
            workflow=Solo(worker=worker),
            propensity=1.0,
            policy=NAMED,
            policy_facts={},
            predictor=NAMED,
            objective=task.objective,
            mask=mask,
            estimates=(),
            utilities={},
            reasons=(f"{worker} is {why}",),
            seed=arrival.seed,
            kind=task.kind,
            decide_s=self._clock.monotonic() - arrival.started,
        )


def take_mode(choice: Choice, learned: Mapping[WorkerId, Workflow]) -> tuple[Choice, WorkerId | None]:
    """The choice among workers alone, and the workflow that stood before all of them, if one did."""
    if not learned:
        return choice, None
    mode = choice.order[0] if choice.order[0] in learned else None
    return replace(choice, order=tuple(worker for worker in choice.order if worker not in learned)), mode


def hand_over(workflow: Workflow, order: Sequence[WorkerId]) -> Workflow:
    """A learned workflow with the policy's other workers behind its own."""
    members = set(list_workers(workflow))
    return replace(workflow, fallbacks=tuple(worker for worker in order if worker not in members))


def require_eligible(workflow: Workflow, mask: Mask) -> None:
    """Let no workflow ask a worker that may not take the task.

    Raises:
        InvalidPlan: it names one.
    """
    for worker in list_workers(workflow):
        if worker not in mask.eligible:
            why = mask.masked.get(worker)
            problem = (
                f"{worker!r} may not take the task: {why.reason}, {why.detail}" if why else f"no worker {worker!r}"
            )
            raise InvalidPlan(problem, hint="`ripieno route` shows who may")


def stay(choice: Choice, incumbent: WorkerId | None, *, is_bound: bool) -> Choice:
    """Leave a conversation with its worker, whose cache holds the earlier turns, where another is hardly better.

    Args:
        choice: of the policy.
        incumbent: the worker of the earlier turns, if any.
        is_bound: whether the turn hands back what a tool gave: then the worker that called it goes on.
    """
    if incumbent is None or incumbent not in choice.order or choice.abstains:
        return choice
    lead = max(choice.utilities.values(), default=0.0) - choice.utilities.get(incumbent, -math.inf)
    if not is_bound and not lead <= STAY_MARGIN:
        return choice
    order = (incumbent, *(worker for worker in choice.order if worker != incumbent))
    why = f"{incumbent} has answered the conversation so far"
    return replace(choice, order=order, propensity=1.0, reasons=(why, *choice.reasons))


def add_waiting(estimate: Estimate, load: float) -> Estimate:
    """The estimate of a worker at which calls wait: each round of those before this one takes as long as it does.

    Args:
        estimate: of a worker that is free.
        load: calls that are with it or wait for it, for each that it takes at once; below 1 there is no waiting.
    """
    rounds = max(load, 0.0) if load >= 1.0 else 0.0
    if not rounds:
        return estimate
    first = None if estimate.first_token_s is None else estimate.first_token_s + rounds * estimate.latency_s
    return replace(estimate, latency_s=estimate.latency_s * (1.0 + rounds), first_token_s=first)


ConditionsSource = Callable[[], Conditions]
