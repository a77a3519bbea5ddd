"""Every mask reason, and that no policy can pass it by."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest
from tests.conftest import MakeWorker

from ripieno.domain import (
    UNKNOWN,
    Arrival,
    Budget,
    Message,
    Need,
    Objective,
    Pool,
    Price,
    Privacy,
    Reason,
    RoutingSetup,
    Solo,
    Task,
    WorkerId,
)
from ripieno.domain.conversation import Media, MediaKind
from ripieno.errors import NoEligibleWorker
from ripieno.route import Conditions, Router, UtilityPolicy, find_able, mask_workers
from ripieno.route.choose import DecisionRule
from ripieno.route.predictors import PriorPredictor
from ripieno.testing.conformance import make_features

TODAY = Conditions(today=date(2026, 11, 22))
TASK = Task.from_text("hello")


def test_a_worker_is_able_unless_a_lasting_reason_masks_it(make_worker: MakeWorker) -> None:
    names = ("fine", "limited", "muted", "old", "missing", "resting")
    cards: dict[str, dict[str, object]] = {"muted": {"is_muted": True}, "old": {"deprecated_on": date(2026, 1, 1)}}
    pool = Pool(tuple(make_worker(name, **cards.get(name, {})) for name in names))
    conditions = replace(
        TODAY,
        unavailable={WorkerId("missing"): "no key"},
        unhealthy={WorkerId("resting"): "timeout"},
        rate_limited={WorkerId("limited"): "wait 2 s"},
    )
    assert find_able(pool, conditions) == ("fine", "limited")


@pytest.mark.parametrize(
    ("reason", "card", "task", "needs", "conditions"),
    [
        (Reason.MUTED, {"is_muted": True}, TASK, set(), TODAY),
        (Reason.DEPRECATED, {"deprecated_on": date(2026, 11, 22)}, TASK, set(), TODAY),
        (Reason.UNAVAILABLE, {}, TASK, set(), replace(TODAY, unavailable={WorkerId("w"): "no key"})),
        (Reason.UNHEALTHY, {}, TASK, set(), replace(TODAY, unhealthy={WorkerId("w"): "timeout"})),
        (Reason.RATE_LIMITED, {}, TASK, set(), replace(TODAY, rate_limited={WorkerId("w"): "wait 2 s"})),
        (Reason.NOT_ALLOWED, {}, replace(TASK, objective=Objective(workers=("other",))), set(), TODAY),
        (Reason.NOT_ALLOWED, {}, replace(TASK, objective=Objective(allowed=("other",))), set(), TODAY),
        (Reason.NOT_NAMED, {"has_effects": True}, TASK, set(), TODAY),
        (Reason.NOT_NAMED, {"needs_approval": True}, TASK, set(), TODAY),
        (
            Reason.NOT_NAMED,
            {"has_effects": True},
            replace(TASK, objective=Objective(allowed=("other", "w"))),
            set(),
            TODAY,
        ),
        (Reason.PRIVACY, {}, replace(TASK, objective=Objective(privacy=Privacy.PRIVATE)), set(), TODAY),
        (Reason.LACKS_TOOLS, {"has_tools": False}, TASK, {Need.TOOLS}, TODAY),
        (Reason.LACKS_JSON, {"has_json_mode": False}, TASK, {Need.JSON}, TODAY),
        (Reason.LACKS_MODALITY, {}, TASK, {Need.IMAGE}, TODAY),
        (Reason.LACKS_MODALITY, {"modalities": frozenset({"text", "image"})}, TASK, {Need.AUDIO}, TODAY),
        (Reason.CONTEXT_TOO_SMALL, {"context_window": 12}, TASK, set(), TODAY),
        (Reason.UNKNOWN_PRICE, {"price": UNKNOWN}, replace(TASK, budget=Budget(cost_usd=1.0)), set(), TODAY),
        (
            Reason.OVER_BUDGET,
            {"price": Price(input_usd_per_mtok=1000)},
            replace(TASK, budget=Budget(cost_usd=0.001)),
            set(),
            TODAY,
        ),
    ],
)
def test_each_reason_masks_the_worker_and_no_other(
    make_worker: MakeWorker,
    reason: Reason,
    card: dict[str, object],
    task: Task,
    needs: set[Need],
    conditions: Conditions,
) -> None:
    features = replace(make_features(), needs=frozenset(needs))
    fit = make_worker(
        "other", privacy=Privacy.LOCAL, modalities=frozenset({"text", "image", "audio"}), context_window=10_000
    )
    mask = mask_workers(task, features, Pool((make_worker("w", **card), fit)), conditions)
    assert mask.eligible == ("other",)
    assert mask.masked[WorkerId("w")].reason is reason
    assert mask.masked[WorkerId("w")].detail


def test_a_worker_with_effects_is_eligible_only_if_the_request_or_its_workflow_names_it(
    make_worker: MakeWorker,
) -> None:
    pool = Pool((make_worker("pay", has_effects=True, needs_approval=True), make_worker("other")))
    both = Objective(workers=("pay", "other"))
    assert mask_workers(replace(TASK, objective=both), make_features(), pool, TODAY).eligible == ("pay", "other")
    named = replace(TODAY, named=frozenset({WorkerId("pay")}))
    assert mask_workers(TASK, make_features(), pool, named).eligible == ("pay", "other")
    only = replace(TASK, objective=Objective(workers=("pay",), allowed=("other",)))
    with pytest.raises(NoEligibleWorker, match="may use only other"):
        mask_workers(only, make_features(), pool, TODAY)


def test_the_sole_worker_of_a_task_is_named_or_all_that_is_allowed() -> None:
    assert Objective().sole is None
    assert Objective(workers=("a", "b"), allowed=("a",)).sole is None
    assert Objective(workers=("a",), allowed=("a", "b")).sole == "a"
    assert Objective(allowed=("b",)).sole == "b"


def test_an_empty_mask_is_an_error_that_lists_every_reason(make_worker: MakeWorker) -> None:
    pool = Pool((make_worker("a", is_muted=True), make_worker("b", deprecated_on=date(2020, 1, 1))))
    with pytest.raises(NoEligibleWorker) as caught:
        mask_workers(TASK, make_features(), pool, TODAY)
    assert set(caught.value.whys) == {"a", "b"}
    assert "muted" in caught.value.message
    assert "deprecated" in caught.value.message
    with pytest.raises(NoEligibleWorker, match="the pool is empty"):
        mask_workers(TASK, make_features(), Pool(()), TODAY)


def test_a_router_never_chooses_a_masked_worker(make_worker: MakeWorker) -> None:
    pool = Pool((make_worker("free", is_muted=True), make_worker("dear", price=Price(usd_per_call=5.0))))
    policy = UtilityPolicy(DecisionRule(exploration=0.19))
    router = Router(setup=RoutingSetup(pool=pool), predictor=PriorPredictor(), policy=policy)
    for seed in range(50):
        arrival = Arrival(id=str(seed), seed=seed, started=0.0)
        decision = router.decide(router.gather(TASK, make_features(), TODAY, arrival=arrival))
        assert decision.workflow == Solo(worker=WorkerId("dear"))
        assert decision.propensity == 1.0
        assert decision.mask.masked[WorkerId("free")].reason is Reason.MUTED
    assert "not measured yet: dear" in decision.reasons


def test_the_prior_chooses_the_cheapest_worker(make_pool: Callable[..., Pool], make_worker: MakeWorker) -> None:
    pool = Pool(
        (make_worker("dear", price=Price(usd_per_call=5.0)), make_worker("cheap", price=Price(usd_per_call=1.0)))
    )
    router = Router(setup=RoutingSetup(pool=pool), predictor=PriorPredictor(), policy=UtilityPolicy())
    task = Task(messages=(Message(role="user", content="x"),))
    arrival = Arrival(id="1", seed=1, started=0.0)
    assert router.decide(router.gather(task, make_features(), TODAY, arrival=arrival)).worker == "cheap"


def test_what_no_format_carries_masks_nobody(make_worker: MakeWorker) -> None:
    pool = Pool((make_worker("a"), make_worker("b")))
    wires = replace(TODAY, wires={WorkerId("a"): "chat", WorkerId("b"): "messages"})
    uploaded = Media(kind=MediaKind.DOCUMENT, file="file-1")
    film = Media(kind=MediaKind.AUDIO, data="xx")
    for parts, eligible in (((uploaded,), ("a", "b")), ((uploaded, film), ("a",))):
        task = Task(messages=(Message(role="user", content=parts),))
        mask = mask_workers(task, make_features(), pool, wires)
        assert mask.eligible == eligible
    assert mask.masked[WorkerId("b")].reason is Reason.CANNOT_CARRY
