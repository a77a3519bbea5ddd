"""Reports against a world of which the truth is known: what was planted is found, and nothing else is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from tests.calls import make_call

from ripieno.domain import Call, Outcome, WorkerId
from ripieno.domain.run import Failure
from ripieno.evaluate.bootstrap import wilson
from ripieno.evaluate.observed import LEAST_EVIDENCE, Observed
from ripieno.evaluate.prices import compare_prices
from ripieno.evaluate.profiles import name_range, profile_workers
from ripieno.evaluate.questions import TrafficReport, answer

WORKERS = ("frontier", "solid", "small", "local", "weak")
PRICE = {"frontier": 0.02, "solid": 0.004, "small": 0.001, "local": 0.0001, "weak": 0.0005}
EQUAL = dict.fromkeys(WORKERS, 0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Share of accepted answers by kind and worker, and what else is so."""

    right: Mapping[str, Mapping[str, float]]
    price: Mapping[str, float]
    tool_harm: float = 0.0
    recovery: float = 0.0
    """What the good fallback adds to the bad one's share of accepted answers."""


PLANTED = Truth(
    right={
        "summary": {"frontier": 0.90, "solid": 0.90, "small": 0.60, "local": 0.55, "weak": 0.30},
        "classify": {"frontier": 0.95, "solid": 0.95, "small": 0.95, "local": 0.60, "weak": 0.40},
        "proof": {"frontier": 0.85, "solid": 0.55, "small": 0.30, "local": 0.20, "weak": 0.10},
        "redact": {"frontier": 0.92, "solid": 0.80, "small": 0.70, "local": 0.93, "weak": 0.30},
    },
    price=PRICE,
    tool_harm=0.4,
    recovery=0.6,
)
SAME = Truth(right={kind: dict.fromkeys(WORKERS, 0.7) for kind in PLANTED.right}, price=EQUAL)


def simulate(truth: Truth, *, seed: int, count: int) -> list[Observed]:
    """Decisions of a router that explores, with noisy estimates; four outcomes of five are judged."""
    rng = np.random.default_rng(seed)
    kinds = list(truth.right)
    rows = []
    for _ in range(count):
        kind = kinds[int(rng.integers(len(kinds)))]
        right = truth.right[kind]
        expected = {name: float(np.clip(right[name] + rng.normal(0.0, 0.1), 0.0, 1.0)) for name in WORKERS}
        shares = np.array([0.4, 0.2, 0.2, 0.1, 0.1])
        place = int(rng.choice(len(WORKERS), p=shares))
        worker = WORKERS[place]
        has_tool, fails = rng.random() < 0.5, rng.random() < 0.3
        chance = right[worker] - (truth.tool_harm if has_tool and fails else 0.0)
        calls = [make_call(worker, tokens=1000, cost_usd=float(truth.price[worker] * rng.uniform(0.8, 1.2)))]
        if rng.random() < 0.05:
            then = ("solid", "weak")[int(rng.integers(2))]
            chance = 0.3 + (truth.recovery if then == "solid" else 0.0)
            failed = make_call(worker, failure=Failure.TIMEOUT, tokens=200, cost_usd=0.0)
            calls = [failed, make_call(then, tokens=1000, cost_usd=truth.price[then])]
        rows.append(
            Observed(
                kind=kind,
                key=None,
                worker=worker,
                propensity=float(shares[place]),
                expected=expected,
                calls=tuple(calls),
                latency_s=1.0,
                is_private=kind == "redact",
                quality=float(rng.random() < max(chance, 0.0)) if rng.random() < 0.8 else None,
                tools=("search",) if has_tool else (),
                faults=("search",) if has_tool and fails else (),
            )
        )
    return rows


@pytest.fixture(scope="module")
def planted() -> TrafficReport:
    return answer(simulate(PLANTED, seed=1, count=160_000), local={"local": 1})


def test_the_overqualified_worker_and_the_cheap_one_that_is_good_enough_are_found(planted: TrafficReport) -> None:
    swaps = {(swap.kind, swap.worker): swap for swap in planted.overqualified}
    assert swaps["summary", "frontier"].cheaper == "solid"
    assert swaps["classify", "frontier"].cheaper == "small", "the cheapest that does"
    assert ("proof", "frontier") not in swaps
    assert all(swap.saved_usd > 0.0 and swap.evidence >= LEAST_EVIDENCE for swap in planted.overqualified)


def test_tasks_that_should_move_to_this_machine_are_found_with_their_private_tokens(planted: TrafficReport) -> None:
    moves = {(swap.kind, swap.worker): swap for swap in planted.local}
    assert {kind for kind, worker in moves if worker == "frontier"} == {"redact"}
    assert moves["redact", "frontier"].private_tokens > 0


@pytest.mark.simulation
def test_a_fallback_with_accepted_answers_ranks_above_one_with_rejected_answers(planted: TrafficReport) -> None:
    best, worst = planted.fallbacks[0], planted.fallbacks[-1]
    assert best.then == "solid"
    assert worst.then == "weak"
    assert best.accepted is not None
    assert worst.accepted is not None
    assert best.accepted.low > worst.accepted.high
    assert worst.answered == worst.count, "it always answers"
    assert worst.false > best.false


def observe_one(**fields: Any) -> Observed:
    """One decision of a worker that answered; keyword arguments are fields."""
    call = make_call("solid", tokens=10, cost_usd=0.01, latency_s=1.0)
    given: dict[str, Any] = {
        "kind": "k", "key": None, "worker": "solid", "propensity": 0.5, "expected": {}, "calls": (call,),
        "latency_s": 1.0, "is_private": False, "author": "solid", "quality": 1.0,
    }  # fmt: skip
    return Observed(**(given | fields))


def test_a_fallback_is_compared_with_another_attempt_of_the_failed_worker() -> None:
    again = make_call("solid", tokens=10, cost_usd=0.01, latency_s=3.0, attempts=2)
    failed = make_call("solid", failure=Failure.TIMEOUT, tokens=0, cost_usd=0.0, latency_s=5.0)
    then = {name: make_call(name, tokens=10, cost_usd=0.03, latency_s=2.0) for name in ("small", "weak")}
    rows = [observe_one(calls=(again,), quality=float(place % 2)) for place in range(60)]
    rows += [observe_one(calls=(failed, then["small"]), quality=float(place % 10 > 0)) for place in range(60)]
    rows += [observe_one(calls=(failed, then["weak"]), quality=0.0) for _ in range(60)]
    small, weak = answer(rows).fallbacks
    assert (small.then, weak.then) == ("small", "weak")
    assert small.lift is not None
    assert small.lift.low > 0.2, "nine of ten against every other one"
    assert small.added_s == 2.0
    assert small.added_usd == pytest.approx(0.03)
    assert not small.never_recovers
    assert weak.never_recovers
    assert weak.answered == 60, "it always answers"
    few = answer(rows[50:120]).fallbacks
    assert [edge.lift for edge in few] == [None], "ten other tries are no evidence"


def test_a_tool_that_only_fails_on_hard_tasks_is_not_blamed() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(4000):
        is_hard = rng.random() < 0.5
        fails = rng.random() < (0.6 if is_hard else 0.05)
        rows.append(observe_one(
            kind="hard" if is_hard else "easy", quality=float(rng.random() < (0.3 if is_hard else 0.9)),
            tools=("search",), faults=("search",) if fails else (),
        ))  # fmt: skip
    assert answer(rows).tools == ()


def test_failures_count_against_a_cheaper_worker() -> None:
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(20_000):
        worker = ("frontier", "small")[int(rng.integers(2))]
        call = make_call(worker, tokens=10, cost_usd=PRICE[worker])
        calls: tuple[Call, ...] = (call,)
        if worker == "small" and rng.random() < 0.2:
            stands_in = make_call("frontier", tokens=10, cost_usd=PRICE["frontier"])
            calls = (replace(call, failure=Failure.SERVER_ERROR), stands_in)
        rows.append(observe_one(
            worker=worker, author=calls[-1].worker, calls=calls, expected={"frontier": 0.9, "small": 0.9},
            quality=float(rng.random() < 0.9),
        ))  # fmt: skip
    assert answer(rows).overqualified == ()
    assert answer([row for row in rows if len(row.calls) == 1]).overqualified != ()


def test_a_move_is_blocked_by_a_full_machine_or_a_missed_deadline() -> None:
    rng = np.random.default_rng(5)

    def world(*, pace_s: float, deadline_s: float | None) -> list[Observed]:
        rows = []
        for place in range(4000):
            worker = ("frontier", "local")[int(rng.integers(2))]
            call = make_call(worker, tokens=10, cost_usd=PRICE[worker], latency_s=2.0)
            rows.append(observe_one(
                worker=worker, author=worker, calls=(call,), latency_s=2.0, expected={"frontier": 0.9, "local": 0.9},
                quality=float(rng.random() < 0.9), at=place * pace_s, deadline_s=deadline_s,
            ))  # fmt: skip
        return rows

    for pace_s, deadline_s, told in (
        (10.0, None, ""),
        (1.0, None, "it would be busy"),
        (10.0, 1.0, "the deadline is 1 s"),
    ):
        (move,) = answer(world(pace_s=pace_s, deadline_s=deadline_s), local={"local": 1}).local
        assert move.p95_s == 2.0
        assert move.load is not None
        assert told in move.blocked
        assert bool(move.blocked) == bool(told)
    (move,) = answer(world(pace_s=1.0, deadline_s=None), local={"local": 8}).local
    assert move.blocked == "", "it takes eight at once"


def test_recent_changes_in_tokens_are_reported() -> None:
    rows = [observe_one(kind="old" if place < 500 else "new") for place in range(1000)]
    rows += [observe_one(kind="rare") for _ in range(3)]
    changes = {spend.name: spend.change for spend in answer(rows).kinds}
    assert changes["old"] == -1.0
    assert changes["rare"] is None, "too few to say"
    grown = [observe_one(kind="k") for _ in range(50)] + [observe_one(kind="x") for _ in range(50)]
    grown += [observe_one(kind="k") for _ in range(100)]
    assert {spend.name: spend.change for spend in answer(grown).kinds} == {"k": 1.0, "x": -1.0}


def test_the_tool_that_breaks_runs_is_found(planted: TrafficReport) -> None:
    assert [fault.tool for fault in planted.tools] == ["search"]
    assert planted.tools[0].harm.low > 0.2


def test_spending_and_waste_are_summarised_by_kind_and_worker(planted: TrafficReport) -> None:
    by = {spend.name: spend for spend in planted.workers}
    assert set(by) == set(WORKERS)
    assert by["frontier"].tokens == max(spend.tokens for spend in planted.workers)
    assert by["weak"].wasted > by["solid"].wasted
    for spend in (*planted.kinds, *planted.workers, *planted.keys):
        assert spend.accepted is not None
        assert spend.accepted.low < spend.accepted.mean < spend.accepted.high


@pytest.mark.simulation
def test_equal_workers_give_no_findings() -> None:
    """False discoveries in at most 5 % of 200 worlds."""
    named = 0
    for seed in range(200):
        found = answer(simulate(SAME, seed=1000 + seed, count=1500), local={"local": 1})
        named += bool(found.overqualified or found.local or found.tools)
    assert named <= 10


def test_prices_alone_give_no_findings_without_evidence() -> None:
    found = answer(simulate(PLANTED, seed=3, count=60), local={"local": 1})
    assert [found.overqualified, found.local, found.tools] == [(), (), ()]
    assert found.thin["overqualified"] == f"not enough evidence: {found.judged} of {LEAST_EVIDENCE} judged"
    assert all(spend.accepted is None for spend in found.kinds)
    empty = answer([])
    assert (empty.decisions, empty.judged, empty.kinds) == (0, 0, ())


def simulate_steps(
    *, extract: Mapping[str, float], solve: Mapping[str, float], seed: int, count: int
) -> list[Observed]:
    """Plans of two steps with a random worker for each; the shares of the two multiply."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        first, second = (list(extract)[int(rng.integers(len(extract)))] for _ in range(2))
        calls = tuple(
            make_call(worker, tokens=500, cost_usd=PRICE[worker], step=str(place))
            for place, worker in enumerate((first, second), start=1)
        )
        quality = float(rng.random() < extract[first] * solve[second])
        rows.append(
            Observed(kind="plan", key=None, worker=first, propensity=1.0, expected={}, calls=calls, latency_s=1.0,
                     is_private=False, is_solo=False, author=second, quality=quality,
                     step_kinds={"1": "extract", "2": "solve"})
        )  # fmt: skip
    return rows


def test_a_cheap_worker_that_is_good_enough_for_one_step_is_found_for_that_step() -> None:
    even = {"frontier": 0.9, "small": 0.9}
    rows = simulate_steps(extract=even, solve={"frontier": 0.9, "small": 0.5}, seed=5, count=40_000)
    found = {(use.step, use.worker): use for use in answer(rows).steps}
    assert found["extract", "small"].does_for == "frontier"
    assert found["solve", "small"].does_for is None
    assert found["extract", "frontier"].does_for is None, "the dearer one is never the cheaper choice"
    assert found["solve", "small"].accepted is not None
    few = answer(rows[:40]).steps
    assert all(use.accepted is None and use.does_for is None for use in few)


@pytest.mark.simulation
def test_a_worker_that_loses_two_points_in_a_step_rarely_counts_as_good_enough() -> None:
    named = 0
    for seed in range(200):
        rows = simulate_steps(
            extract={"frontier": 0.9, "small": 0.88}, solve={"frontier": 1.0, "small": 0.98}, seed=seed, count=1500
        )
        named += any(use.does_for for use in answer(rows).steps)
    assert named <= 10


def test_profiles_list_calls_lengths_and_corrections_of_each_worker() -> None:
    def row(tokens: int, quality: float, edited: float | None = None, bad: int = 0) -> Observed:
        call = make_call("solid", tokens=tokens, cost_usd=0.01, latency_s=2.0)
        return Observed(kind="k", key=None, worker="solid", propensity=1.0, expected={}, calls=(call,), latency_s=2.0,
                        is_private=False, author="solid", input_tokens=tokens, quality=quality, edited=edited,
                        tool_calls=1, bad_tool_calls=bad)  # fmt: skip

    rows = [row(100, 1.0, edited=0.1) for _ in range(60)]
    rows += [row(20_000, 0.0, edited=0.9, bad=1) for _ in range(60)]
    rows += [row(5_000, 1.0) for _ in range(LEAST_EVIDENCE - 1)]
    (profile,) = profile_workers(rows)
    short, _, middle, long, longest = profile.accepted
    assert short.share is not None
    assert long.share is not None
    assert short.share.low > long.share.high, "the curve over the length falls"
    assert (middle.count, middle.share, longest.count) == (LEAST_EVIDENCE - 1, None, 0)
    assert profile.corrected.share is not None
    assert profile.corrected.share.mean == 0.5
    assert profile.bad_tool_calls.share is not None
    assert profile.bad_tool_calls.share.low > 0.2
    assert (profile.calls, profile.latency_s, profile.failed.count) == (len(rows), 2.0, len(rows))
    assert [name_range(place) for place in range(5)] == [
        "under 1k", "1k to 4k", "4k to 16k", "16k to 64k", "64k on"
    ]  # fmt: skip


def test_prices_are_compared_only_on_common_tasks() -> None:
    rng = np.random.default_rng(0)
    outcomes = [
        Outcome(
            task=f"t{task}", worker=WorkerId(worker), quality=float(rng.random() < right), cost_usd=cost, latency_s=1.0
        )
        for task in range(400)
        for worker, right, cost, least in (("dear", 0.97, 0.02, 0), ("cheap", 0.9, 0.001, 100), ("rare", 1.0, 0.0, 390))
        if task >= least
    ]
    rows = {row.worker: row for row in compare_prices(outcomes)}
    assert set(rows) == {"cheap", "rare"}, "the best of those that did most of the tasks stands beside the others"
    assert (rows["cheap"].beside, rows["cheap"].tasks) == ("dear", 300)
    assert rows["cheap"].difference is not None
    assert rows["cheap"].difference.low < -0.07 < rows["cheap"].difference.high <= 0.0
    assert (rows["rare"].tasks, rows["rare"].difference) == (10, None), "ten tasks are no evidence"
    assert compare_prices(outcomes[:1]) == ()


def test_the_interval_of_a_share_near_0_or_1_stays_within_range() -> None:
    certain = wilson([1.0] * 20)
    assert certain.mean == 1.0
    assert 0.8 < certain.low < 0.9
    assert certain.high <= 1.0
