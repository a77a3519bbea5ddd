"""The router: named workers, waiting, and conversations that stay."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

import pytest

from ripieno.domain import (
    Arrival,
    Choice,
    Decision,
    Estimate,
    Features,
    Message,
    Objective,
    Pool,
    RoutingSetup,
    Task,
    Verified,
    Worker,
    WorkerId,
)
from ripieno.domain.grader import Exact
from ripieno.errors import NoEligibleWorker, PredictorError
from ripieno.route import Conditions, Router
from ripieno.route.choose import DecisionRule
from ripieno.route.policies import UtilityPolicy
from ripieno.route.predictors import Forecast
from ripieno.route.router import NAMED, STAY_MARGIN, add_waiting, prefer_incumbent
from ripieno.testing.conformance import make_features

TODAY = Conditions(today=date(2026, 1, 1))


class Even:
    """Expects the same of every worker, but for a little more quality of the later ones."""

    version = "even"

    def forecast(self, features: Features, workers: Sequence[Worker]) -> Forecast:
        estimates = tuple(
            Estimate(worker=w.id, quality=0.8 + i / 100, quality_sd=0.01, cost_usd=0.001, latency_s=2.0)
            for i, w in enumerate(workers)
        )
        return Forecast(estimates=estimates, kind=features.kind or "maths")


def decide(task: Task, pool: Pool, conditions: Conditions = TODAY, *, arrival: Arrival | None = None) -> Decision:
    policy = UtilityPolicy(DecisionRule(exploration=0.0, has_ladder=False))
    router = Router(setup=RoutingSetup(pool=pool), predictor=Even(), policy=policy)
    return router.decide(router.gather(task, make_features(), conditions, arrival=arrival or make_arrival()))


class Replaced(Even):
    """Is replaced while it estimates, or fails after that."""

    version = "replaced"

    def __init__(self, *, fails: bool = False) -> None:
        self.router: Router | None = None
        self.fails = fails

    def forecast(self, features: Features, workers: Sequence[Worker]) -> Forecast:
        assert self.router is not None
        self.router.predictor = Even()
        if self.fails:
            raise PredictorError("it is broken", predictor="p", checkpoint="c")
        return super().forecast(features, workers)


def make_arrival(incumbent: str | None = None) -> Arrival:
    return Arrival(id="d1", seed=1, started=0.0, incumbent=WorkerId(incumbent) if incumbent else None)


def ask(*workers: str, role: str = "user") -> Task:
    message = Message(role=role, content="What is 2 + 2?")
    return Task(messages=(message,), objective=Objective(workers=workers, deadline_s=10.0))


@pytest.mark.parametrize(("fails", "version"), [(False, "replaced"), (True, "prior")])
def test_a_decision_records_the_predictor_that_made_it_even_if_another_is_published_meanwhile(
    make_pool: Callable[..., Pool], *, fails: bool, version: str
) -> None:
    predictor = Replaced(fails=fails)
    router = Router(setup=RoutingSetup(pool=make_pool("a", "b")), predictor=predictor, policy=UtilityPolicy())
    predictor.router = router
    inputs = router.gather(ask(), make_features(), TODAY, arrival=make_arrival())
    first, second = router.decide(inputs), router.decide(inputs)
    assert (first.predictor, second.predictor) == (version, "even")
    assert ("the worker cards decide" in first.reasons[-1]) is fails
    assert router.fault is None, "the predictor of the second decision works"


def test_the_only_worker_of_a_key_is_chosen_without_estimates_and_not_reported_as_named(
    make_pool: Callable[..., Pool],
) -> None:
    task = replace(ask(), objective=Objective(allowed=("b",)))
    decision = decide(task, make_pool("a", "b"))
    assert (decision.worker, decision.policy) == ("b", NAMED)
    assert decision.reasons == ("b is the only worker that may be used",)


def test_a_callers_workflow_runs_even_if_the_request_names_one_worker(
    make_pool: Callable[..., Pool],
) -> None:
    workflow = Verified(worker=WorkerId("b"), check=Exact(answers=("4",)))
    arrival = replace(make_arrival(), workflow=workflow)
    decision = decide(ask("b"), make_pool("a", "b"), arrival=arrival)
    assert decision.workflow == workflow


def test_a_named_worker_is_chosen_without_estimates(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool("a", "b")
    decision = decide(ask("b"), pool)
    assert (decision.worker, decision.policy, decision.predictor) == ("b", NAMED, NAMED)
    assert (decision.estimates, decision.propensity) == ((), 1.0)
    muted = Pool(tuple(replace(worker, is_muted=True) for worker in pool))
    with pytest.raises(NoEligibleWorker, match="muted"):
        decide(ask("b"), muted)
    with pytest.raises(NoEligibleWorker, match="not_allowed"):
        decide(ask("gone"), pool)


def test_waiting_is_added_to_the_latency_of_full_workers(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool("a", "b")
    free = decide(ask(), pool)
    assert free.worker == "b"
    full = replace(TODAY, load={WorkerId("b"): 4.0, WorkerId("gone"): 9.0})
    decision = decide(ask(), pool, full)
    assert decision.worker == "a"
    assert decision.load == {"b": 4.0}
    assert [estimate.latency_s for estimate in decision.estimates] == [2.0, 10.0]


def test_below_one_there_is_no_waiting(make_estimate: Callable[..., Estimate]) -> None:
    estimate = make_estimate(latency_s=2.0, first_token_s=0.5)
    assert add_waiting(estimate, 0.9) is estimate
    assert add_waiting(estimate, 2.0).first_token_s == 4.5
    assert add_waiting(make_estimate(latency_s=2.0), 1.0).first_token_s is None


def test_a_conversation_stays_unless_another_is_clearly_better(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool("a", "b")
    decision = decide(ask(), pool, arrival=make_arrival("a"))
    assert (decision.worker, decision.incumbent, decision.propensity) == ("a", "a", 1.0)
    assert decision.reasons[0] == "a has answered the conversation so far"
    choice = Choice(
        order=(WorkerId("b"), WorkerId("a")),
        propensity=0.9,
        utilities={WorkerId("a"): 0.1, WorkerId("b"): 0.2 + STAY_MARGIN},
        reasons=("b is better",),
    )
    assert prefer_incumbent(choice, WorkerId("a"), must_stay=False) is choice
    assert prefer_incumbent(choice, WorkerId("a"), must_stay=True).order == ("a", "b")
    for incumbent in (None, WorkerId("gone")):
        assert prefer_incumbent(choice, incumbent, must_stay=True) is choice
    assert prefer_incumbent(replace(choice, abstains=True), WorkerId("a"), must_stay=True).abstains


def test_unhealthy_workers_are_eligible_if_no_other_worker_is(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool("a", "b")
    resting = replace(TODAY, unhealthy={WorkerId("a"): "timeout", WorkerId("b"): "timeout"})
    decision = decide(ask(), pool, resting)
    assert set(decision.mask.eligible) == {"a", "b"}
    limited = replace(TODAY, rate_limited={WorkerId("a"): "wait", WorkerId("b"): "wait"})
    with pytest.raises(NoEligibleWorker) as caught:
        decide(ask(), pool, limited)
    assert caught.value.is_temporary
