"""Money is known or unknown, never zero by accident: in utilities, masks, sums, holds and reports."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.calls import make_call

from ripieno.app.build import build_pool
from ripieno.cli.prices import describe_list_date, describe_unknown_prices
from ripieno.config import load_settings
from ripieno.dashboard.pool import format_price
from ripieno.domain import (
    FREE,
    UNKNOWN,
    Binding,
    Budget,
    Call,
    Estimate,
    Executed,
    KeyLimits,
    Objective,
    Pool,
    Price,
    Reason,
    Run,
    Task,
    Usage,
    Worker,
    WorkerId,
    bound_call,
    cap_output,
    find_periods,
)
from ripieno.domain.report import format_money, format_money_sum
from ripieno.domain.run import Origin
from ripieno.errors import InvalidTask, NoEligibleWorker
from ripieno.evaluate.observed import Observed, mean_known
from ripieno.evaluate.profiles import profile_workers
from ripieno.evaluate.questions import summarise
from ripieno.evaluate.steps import find_steps
from ripieno.ledger import Change, Holds, Ledger, Reserve, begin_period
from ripieno.ledger.codec import encode_entry
from ripieno.measure.profile import CampaignProgress
from ripieno.route import Pacer
from ripieno.route.choose import gather_estimates
from ripieno.route.compose import WorkflowInputs
from ripieno.route.mask import Conditions, mask_workers
from ripieno.route.policies import UtilityPolicy
from ripieno.route.predictors.prior import PriorPredictor
from ripieno.route.utility import Scales, fill_unknown_costs, score_outcome, score_utilities
from ripieno.testing import FixedClock
from ripieno.testing.conformance import make_features

MakeWorker = Callable[..., Worker]
MakeEstimate = Callable[..., Estimate]
TODAY = Conditions(today=date(2026, 11, 29))
AT = 1_795_500_000.0
"""2026-11-24."""


@given(known=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=6))
def test_an_unknown_cost_ranks_as_the_highest(known: list[float]) -> None:
    scales = Scales()
    filled = fill_unknown_costs(np.array([*known, np.nan]), scales)
    assert filled[:-1].tolist() == known
    assert filled[-1] == max(*known, scales.cost_usd)


def test_unknown_costs_alone_are_ordinary_prices() -> None:
    assert fill_unknown_costs(np.array([np.nan, np.nan]), Scales(cost_usd=0.5)).tolist() == [0.5, 0.5]
    assert float(fill_unknown_costs(np.array(np.nan), Scales(cost_usd=0.5))) == 0.5
    table = fill_unknown_costs(np.array([[1.0, np.nan], [np.nan, 4.0]]), Scales())
    assert table.tolist() == [[1.0, 1.0], [4.0, 4.0]]


def test_a_cheap_dial_takes_a_known_price_before_an_unknown_one(make_estimate: MakeEstimate) -> None:
    estimates = [make_estimate("secret", cost_usd=None), make_estimate("dear", cost_usd=5.0), make_estimate("cheap")]
    assert np.isnan(gather_estimates(estimates).expected.cost_usd[0, 0])
    scores = score_utilities(gather_estimates(estimates).expected, Objective(preference=0.4), Scales())[0]
    assert scores[0] == scores[1] < scores[2]
    rng = np.random.default_rng(0)
    choice = UtilityPolicy().decide(make_features(), estimates, objective=Objective(preference=0.2), rng=rng)
    assert choice.order[0] == "cheap"


def test_an_outcome_of_unknown_cost_is_worth_less_than_one_for_nothing() -> None:
    objective, scales = Objective(preference=0.5), Scales()
    unknown, free = (score_outcome(1.0, cost, 1.0, objective, scales) for cost in (None, 0.0))
    assert unknown < free


def test_an_estimate_may_have_no_cost_but_no_negative_one(make_estimate: MakeEstimate) -> None:
    assert make_estimate(cost_usd=None).cost_usd is None
    with pytest.raises(ValueError, match="cost_usd must not be negative"):
        make_estimate(cost_usd=-1.0)
    with pytest.raises(ValueError, match="latency_s must not be negative"):
        make_estimate(cost_usd=None, latency_s=-1.0)


def test_the_prior_does_not_guess_a_price(make_worker: MakeWorker) -> None:
    workers = [make_worker("a", price=UNKNOWN), make_worker("b", price=FREE)]
    features = make_features()
    assert [e.cost_usd for e in PriorPredictor().forecast(features, workers).estimates] == [None, 0.0]


def test_a_budget_masks_unknown_prices_and_what_it_cannot_pay(make_worker: MakeWorker) -> None:
    pool = Pool(
        (
            make_worker("secret", price=UNKNOWN),
            make_worker("dear", price=Price(usd_per_call=1.0)),
            make_worker("free", price=FREE),
            make_worker("reads", price=Price(input_usd_per_mtok=1.0, prices_output=False)),
        )
    )
    task = Task.from_text("x")
    assert mask_workers(task, make_features(), pool, TODAY).masked == {}
    bound = Task(messages=task.messages, budget=Budget(cost_usd=0.5))
    mask = mask_workers(bound, make_features(), pool, TODAY)
    assert mask.eligible == ("free",)
    reasons = {worker: why.reason for worker, why in mask.masked.items()}
    assert reasons == {"secret": Reason.UNKNOWN_PRICE, "dear": Reason.OVER_BUDGET, "reads": Reason.UNKNOWN_PRICE}
    with pytest.raises(NoEligibleWorker, match=r'unknown_price .*price = "free"'):
        mask_workers(bound, make_features(), Pool((pool["secret"],)), TODAY)


def test_an_unknown_cost_is_not_the_cheapest(make_estimate: MakeEstimate, make_pool: Callable[..., Pool]) -> None:
    estimates = (make_estimate("a", cost_usd=None), make_estimate("b", cost_usd=9.0))
    order = (WorkerId("a"), WorkerId("b"), WorkerId("c"))
    cast = WorkflowInputs(task=Task.from_text("x"), pool=make_pool(*order), order=order, estimates=estimates)
    assert cast.cheapest_first()[0] == "b"


def test_the_pacer_counts_unknown_costs_apart() -> None:
    pacer = Pacer(0.01)
    pacer.observe(None)
    assert (pacer.tasks, pacer.spent_usd, pacer.unknown, pacer.money_weight) == (0, 0.0, 1, 0.0)
    pacer.observe(0.1)
    assert (pacer.tasks, pacer.unknown) == (1, 1)
    assert pacer.money_weight > 0.0


def test_a_ceiling_of_a_campaign_ends_at_an_unknown_cost() -> None:
    progress = CampaignProgress(total=2, done=0, resumed=0)
    progress.add_cost(0.1)
    assert not progress.is_over(1.0)
    progress.add_cost(None)
    assert progress.is_over(1.0)
    assert not progress.is_over(None)
    assert (progress.spent_usd, progress.unknown) == (0.1, 1)


def test_money_is_told_as_unknown_or_as_a_least_amount() -> None:
    assert [format_money(value) for value in (None, 0.0, 0.1234)] == ["unknown", "$0", "$0.123"]
    assert [format_money_sum(0.5, unknown) for unknown in (0, 3)] == ["$0.5", "at least $0.5, 3 unknown"]


def test_pages_and_commands_tell_which_prices_are_unknown(make_worker: MakeWorker) -> None:
    reads = Price(input_usd_per_mtok=2.0, prices_output=False)
    assert [format_price(price) for price in (UNKNOWN, FREE)] == ["unknown", "free"]
    assert format_price(reads) == "$2 in, unknown out a million tokens"
    assert describe_unknown_prices(Pool((make_worker("a"),))) is None
    told = describe_unknown_prices(
        Pool((make_worker("a"), make_worker("b", price=UNKNOWN), make_worker("c", price=reads)))
    )
    assert told is not None
    assert told.startswith("price unknown: b, c; no budget can use them")
    assert "20" in describe_list_date()


def observe(*costs: float | None, step_kind: str = "") -> Observed:
    calls = tuple(make_call("w", tokens=1, cost_usd=cost) for cost in costs)
    return Observed(
        kind="k",
        key=None,
        worker="w",
        propensity=1.0,
        expected={},
        calls=calls,
        latency_s=1.0,
        is_private=False,
        step_kinds={"": step_kind},
    )


def test_reports_do_not_count_an_unknown_cost_as_nothing() -> None:
    rows = [observe(0.5, None, step_kind="solve"), observe(0.25, step_kind="solve")]
    (spend,) = summarise(rows, lambda row: row.kind)
    assert (spend.cost_usd, spend.unknown) == (0.75, 1)
    (profile,) = profile_workers(rows)
    assert profile.cost_usd is None
    assert profile_workers([observe(0.5), observe(0.25)])[0].cost_usd == 0.375
    (use,) = find_steps(rows)
    assert use.cost_usd is None
    assert mean_known([]) is None
    assert mean_known([1.0, 2.0], of=4) == 0.75


def test_a_run_of_unknown_cost_is_recorded_as_such() -> None:
    call = Call(worker=WorkerId("w"), worker_version="1", usage=Usage(), cost_usd=None, latency_s=1.0)
    run = Run(id="r", task="t", origin=Origin.TRAFFIC, calls=(call,), answer=None, key="k")
    row = encode_entry(Executed(run=run))
    assert (row.cost_usd, row.has_unknown_cost) == (0.0, True)


@pytest.fixture
def holds(ledger: Ledger) -> Holds:
    """Return the holds of an empty ledger."""
    return ledger.keys.holds


def reserve(run: str, most: float, least: float, **limits: float) -> Reserve:
    return Reserve(run=run, key="k", limits=KeyLimits(**limits), most_usd=most, least_usd=least)  # type: ignore[arg-type]


def test_holds_grant_what_is_left_and_no_more(holds: Holds) -> None:
    first, second, third = holds.apply(
        [reserve("a", 0.6, 0.1, usd_per_day=1.0), reserve("b", 0.6, 0.1, usd_per_day=1.0),
         reserve("c", 0.6, 0.1, usd_per_day=1.0)]
    )  # fmt: skip
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.granted_usd == 0.6
    assert second.granted_usd == pytest.approx(0.4)
    assert third.spent_usd == pytest.approx(1.0)
    assert (third.granted_usd, third.limit_usd, third.period) == (None, 1.0, "day")
    assert {run: usd for run, (_, _, usd) in holds.read().items()} == {"a": 0.6, "b": pytest.approx(0.4)}
    assert holds.apply([Change(run="a", usd=0.1), Change(run="b", usd=None)]) == [None, None]
    (again,) = holds.apply([reserve("a", 0.5, 0.1, usd_per_day=1.0, usd_per_month=0.3)])
    assert again is not None
    assert again.granted_usd == pytest.approx(0.2)
    assert again.period == "month"
    assert {run: usd for run, (_, _, usd) in holds.read().items()} == {"a": pytest.approx(0.3)}


def test_a_recorded_run_replaces_its_hold(ledger: Ledger, holds: Holds) -> None:
    holds.apply([reserve("a", 0.6, 0.1, usd_per_day=1.0), reserve("b", 0.1, 0.1, usd_per_day=1.0)])
    call = Call(worker=WorkerId("w"), worker_version="1", usage=Usage(), cost_usd=0.05, latency_s=1.0)
    run = Run(id="a", task="t", origin=Origin.TRAFFIC, calls=(call,), answer=None, key="k")
    ledger.append_now([Executed(run=run)])
    assert list(holds.read()) == ["b"]
    (granted,) = holds.apply([reserve("c", 1.0, 0.1, usd_per_day=1.0)])
    assert granted is not None
    assert granted.granted_usd == pytest.approx(0.85)


def test_a_hold_counts_in_the_month_of_another_day(tmp_path: Path) -> None:
    clock = FixedClock(AT)
    with Ledger(f"sqlite:///{tmp_path}/days.db", clock=clock) as ledger:
        ledger.keys.holds.apply([reserve("a", 0.6, 0.1, usd_per_day=1.0)])
        clock.advance(86_400.0)
        day, month = ledger.keys.holds.apply(
            [reserve("b", 1.0, 0.1, usd_per_day=1.0), reserve("c", 1.0, 0.1, usd_per_month=2.0)]
        )
    assert day is not None
    assert month is not None
    assert day.granted_usd == 1.0
    assert month.granted_usd == pytest.approx(0.4)


def test_periods_begin_at_midnight() -> None:
    day, month = find_periods(AT)
    assert begin_period(month) <= begin_period(day) <= AT < begin_period(day) + 86_400.0


def test_a_ledger_of_before_holds_is_brought_up_and_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    call = Call(worker=WorkerId("w"), worker_version="1", usage=Usage(), cost_usd=0.05, latency_s=1.0)
    run = Run(id="a", task="t", origin=Origin.TRAFFIC, calls=(call,), answer=None, key="k")
    with Ledger(f"sqlite:///{path}") as ledger:
        ledger.append_now([Executed(run=run)])
    old = sqlite3.connect(path)
    body = old.execute("SELECT body FROM entries").fetchone()[0]
    assert '"cost_usd":0.05' in body
    old.executescript(
        "DROP TABLE holds; DROP TABLE documents; ALTER TABLE spend DROP COLUMN unknown; "
        "UPDATE alembic_version SET version_num='0004'"
    )
    old.close()
    with Ledger(f"sqlite:///{path}") as ledger:
        ledger.verify()
        (found,) = ledger.keys.spent((find_periods(ledger_time(ledger))[0],)).values()
        assert [(part.cost_usd, part.unknown) for part in found.values()] == [(0.05, 0)]
        assert ledger.keys.holds.read() == {}


def ledger_time(ledger: Ledger) -> float:
    return next(iter(ledger.read())).at


def test_the_embedded_pool_states_every_price() -> None:
    pool = build_pool(load_settings().settings)
    assert describe_unknown_prices(pool) is None
    assert not any(worker.price.is_free for worker in pool)


@pytest.mark.parametrize(
    ("params", "reserved"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 20_000}, 20_000),
        ({"max_tokens": 5, "max_output_tokens": 900}, 900),
        ({"max_tokens": "700"}, 700),
        ({"max_tokens": 5.0, "num_predict": 60}, 60),
    ],
)
def test_the_highest_of_several_limits_is_reserved_and_one_limit_is_sent(
    make_worker: MakeWorker, params: dict[str, object], reserved: int
) -> None:
    worker = make_worker(price=Price(input_usd_per_mtok=0.0, output_usd_per_mtok=1.0))
    task = replace(Task.from_text("hello"), params=params)
    bound = bound_call(worker, task)
    assert bound is not None
    assert bound.output_tokens == reserved
    assert not bound.is_limited, "no server is left to choose between them"
    sent = cap_output(worker, task, 300).params
    assert [value for name, value in sent.items() if "tokens" in name or "predict" in name] == [300]


def test_a_limit_of_the_card_and_one_of_the_request_say_the_same(make_worker: MakeWorker) -> None:
    binding = Binding(provider="p", model="m", options={"params": {"max_tokens": 4_000}})
    worker = make_worker(price=Price(input_usd_per_mtok=0.0, output_usd_per_mtok=1.0), binding=binding)
    task = replace(Task.from_text("hello"), params={"max_completion_tokens": 10})
    bound = bound_call(worker, task)
    assert bound is not None
    assert bound.output_tokens == 4_000
    assert dict(cap_output(worker, task, 7).params) == {"max_tokens": 7, "max_completion_tokens": 7}


@pytest.mark.parametrize(
    "params",
    [
        {"n": "many"},
        {"n": -1},
        {"max_tokens": True},
        {"max_tokens": 1e300},
        {"best_of": []},
        {"service_tier": "priority"},
    ],
)
def test_fields_that_make_the_price_unknown_are_refused_under_a_budget(
    make_worker: MakeWorker, params: dict[str, object]
) -> None:
    worker = make_worker(price=Price(input_usd_per_mtok=0.0, output_usd_per_mtok=1.0))
    with pytest.raises(InvalidTask) as caught:
        bound_call(worker, replace(Task.from_text("hello"), params=params))
    assert caught.value.param == next(iter(params))


@pytest.mark.parametrize("params", [{"n": "3"}, {"n": 3.0}, {"best_of": 3}])
def test_every_way_to_ask_for_several_answers_is_reserved(make_worker: MakeWorker, params: dict[str, object]) -> None:
    worker = make_worker(price=Price(input_usd_per_mtok=0.0, output_usd_per_mtok=1.0))
    one, three = (bound_call(worker, replace(Task.from_text("x"), params=p)) for p in ({}, params))
    assert one is not None
    assert three is not None
    assert three.most_usd == pytest.approx(3 * one.most_usd)
