"""Router: Features and Pool to a Decision."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ripieno.domain import Clock, Decision, Estimate, Features, Pool, Solo, Task, Worker
from ripieno.route.mask import Conditions, mask_workers
from ripieno.route.policies import Policy


class Predictor(Protocol):
    """Makes Estimates. Built-in and plugin predictors fill the same role."""

    @property
    def version(self) -> str:
        """Names what estimated, so that a replay finds it."""
        ...

    def estimate(self, features: Features, workers: Sequence[Worker]) -> tuple[Estimate, ...]:
        """Estimate one task on each of `workers`, in order."""
        ...

    def infer_kind(self, features: Features) -> str | None:
        """The kind of task, where the predictor can tell it from the features."""
        ...

    def advise(self, features: Features) -> Mapping[str, float]:
        """Further shares in [0, 1]; empty where the predictor has no head for any."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """When a task came in, and under what name and seed it is decided."""

    id: str
    seed: int
    started: float
    """The clock's monotonic time at arrival."""


class Router:
    """Mask, estimate, decide: one pure step, replayed with the same seed to the same decision."""

    def __init__(self, *, predictor: Predictor, policy: Policy, clock: Clock) -> None:
        self.predictor = predictor
        self.policy = policy
        self._clock = clock

    def decide(
        self, task: Task, features: Features, pool: Pool, conditions: Conditions, *, arrival: Arrival
    ) -> Decision:
        """Decide one task.

        Raises:
            NoEligibleWorker: the mask is empty.
        """
        mask = mask_workers(task, features, pool, conditions)
        estimates = self.predictor.estimate(features, [pool[worker] for worker in mask.eligible])
        kind = features.kind or self.predictor.infer_kind(features)
        features = replace(features, kind=kind)
        rng = np.random.default_rng(arrival.seed)
        choice = self.policy.decide(features, estimates, objective=task.objective, rng=rng)
        unmeasured = [e.worker for e in estimates if not e.is_measured]
        reasons = choice.reasons
        if unmeasured:
            reasons = (*reasons, f"not measured yet: {', '.join(unmeasured)}")
        return Decision(
            id=arrival.id,
            workflow=Solo(worker=choice.order[0], fallbacks=choice.order[1:]),
            propensity=choice.propensity,
            policy=self.policy.name,
            policy_facts=self.policy.facts,
            predictor=self.predictor.version,
            objective=task.objective,
            mask=mask,
            estimates=estimates,
            utilities=choice.utilities,
            reasons=reasons,
            seed=arrival.seed,
            kind=kind,
            advice=dict(self.predictor.advise(features)),
            abstains=choice.abstains,
            decide_s=self._clock.monotonic() - arrival.started,
        )


ConditionsSource = Callable[[], Conditions]
