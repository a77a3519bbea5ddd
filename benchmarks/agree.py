"""Count the tasks on which the served policy and the decision rule on arrays choose differently: 0 is demanded.

    python benchmarks/agree.py [TASKS]

Each case has an objective, options of the rule, and some tasks with random estimates and a random mask. The policy
decides one task at a time from the eligible workers alone, as in the gateway. The rule decides all tasks at once, as in
the benchmark.
"""

import sys
from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain import Estimate, Objective, Standing, WorkerId
from ripieno.route import PRESETS, UtilityPolicy
from ripieno.route.choose import DecisionRule, EstimateArrays, abstain, choose, explore
from ripieno.route.utility import Priced, Scales
from ripieno.testing.conformance import make_features

TASKS, BATCH = 100_000, 25
STANDINGS = tuple(Standing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Some tasks under one objective and one rule."""

    objective: Objective
    rule: DecisionRule
    arrays: EstimateArrays
    eligible: np.ndarray
    """The mask, shape (n, m)."""
    seeds: np.ndarray
    """Of the exploration on each task, shape (n,)."""


def draw_case(rng: np.random.Generator, *, tasks: int) -> Case:
    """Draw a case; in every third, numbers are rounded, so that there are ties."""
    shape = tasks, int(rng.integers(1, 9))
    digits = 1 if rng.random() < 0.33 else 15

    def draw(low: float, high: float, size: tuple[int, ...] | None = None) -> np.ndarray:
        return np.round(rng.uniform(low, high, size=size), digits)

    def maybe(value: np.ndarray) -> float | None:
        return float(value) if rng.random() < 0.5 else None

    eligible = rng.random(shape) < 0.8
    eligible[np.arange(tasks), rng.integers(shape[1], size=tasks)] = True
    newcomers = rng.random(shape) < rng.choice([0.0, 0.5, 1.0], p=[0.4, 0.5, 0.1])
    expected = Priced(
        quality=draw(0.0, 1.0, shape),
        cost_usd=np.where(rng.random(shape) < 0.2, np.nan, draw(0.0, 0.9, shape)),
        latency_s=np.where(rng.random(shape) < 0.2, 1.0, draw(0.0, 5.0, shape)),
        quality_sd=draw(0.0, 0.4, shape),
        latency_log_sd=draw(0.0, 1.5, shape),
    )
    return Case(
        objective=Objective(
            preference=float(draw(0.0, 1.0)),
            preset=str(rng.choice(list(PRESETS))),
            deadline_s=maybe(draw(0.1, 5.0)),
            quality_floor=maybe(draw(0.0, 1.0)) or 0.0,
            mission_criticality=float(draw(0.0, 10.0)),
            time_criticality=float(draw(0.0, 10.0)),
            abstain_price=maybe(draw(0.0, 2.0)),
            money_weight=maybe(draw(0.0, 50.0)) or 0.0,
        ),
        rule=DecisionRule(
            exploration=maybe(draw(0.0, 0.9)) or 0.0,
            scales=Scales(cost_usd=float(10.0 ** rng.uniform(-4.0, 0.0)), latency_s=float(rng.uniform(0.1, 5.0))),
            margin=maybe(draw(0.0, 0.3)) or 0.0,
            has_ladder=bool(rng.random() < 0.8),
        ),
        arrays=EstimateArrays(
            expected=expected,
            mean_quality=draw(0.0, 1.0, shape),
            standing=np.where(newcomers, rng.integers(len(STANDINGS), size=shape), STANDINGS.index(Standing.FREE)),
            is_measured=rng.random(shape) < 0.8,
            is_eligible=None if eligible.all() else eligible,
        ),
        eligible=eligible,
        seeds=rng.integers(2**32, size=tasks),
    )


def list_estimates(case: Case, row: int) -> list[Estimate]:
    """Return the estimates of one task's eligible workers, as the router hands them to the policy."""
    expected, arrays = case.arrays.expected, case.arrays
    costs, sds, spreads = (
        np.asarray(part) for part in (expected.cost_usd, expected.quality_sd, expected.latency_log_sd)
    )
    return [
        Estimate(
            worker=WorkerId(str(column)),
            quality=float(expected.quality[row, column]),
            quality_sd=float(sds[row, column]),
            cost_usd=None if np.isnan(costs[row, column]) else float(costs[row, column]),
            latency_s=float(expected.latency_s[row, column]),
            latency_log_sd=float(spreads[row, column]),
            is_measured=bool(arrays.is_measured[row, column]),
            mean_quality=float(arrays.mean_quality[row, column]),
            standing=STANDINGS[int(arrays.standing[row, column])],
        )
        for column in np.flatnonzero(case.eligible[row]).tolist()
    ]


def find_differences(case: Case) -> list[int]:
    """Return the tasks on which leader, utilities, drawn worker, probability or abstention differ."""
    rule, objective, arrays = case.rule, case.objective, case.arrays
    quiet, served = UtilityPolicy(replace(rule, exploration=0.0)), UtilityPolicy(rule)
    found = choose(arrays, objective, rule)
    drawn = explore(arrays, found, objective, rule, [np.random.default_rng(seed) for seed in case.seeds])
    silent = abstain(arrays, np.array([column for column, _ in drawn]), objective)
    leaders = explore(arrays, found, objective, DecisionRule(), [np.random.default_rng(seed) for seed in case.seeds])
    different = []
    for row, seed in enumerate(case.seeds):
        estimates = list_estimates(case, row)
        plain, choice = (
            policy.decide(make_features(), estimates, objective=objective, rng=np.random.default_rng(seed))
            for policy in (quiet, served)
        )
        is_same = (
            plain.order[0] == str(leaders[row][0])
            and {worker: found.utility[row, int(worker)] for worker in choice.utilities} == dict(choice.utilities)
            and (choice.order[0], choice.propensity) == (str(drawn[row][0]), drawn[row][1])
            and choice.abstains == silent[row]
        )
        if not is_same:
            different.append(row)
    return different


def main(tasks: int = TASKS) -> None:
    """Draw cases until so many tasks were decided twice, and print the count."""
    different = sum(
        len(find_differences(draw_case(np.random.default_rng([7, number]), tasks=BATCH)))
        for number in range(tasks // BATCH)
    )
    print(f"{tasks // BATCH * BATCH} tasks decided by the policy and by the rule on arrays: {different} differences")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
