"""Audit: a planted bias is found and named, and a fair router is not accused."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from ripieno.domain import Choice, Decision, Estimate, Features, Mask, Objective, Solo, WorkerId
from ripieno.evaluate.audit import Audit, Audited, audit
from ripieno.route import Policy, UtilityPolicy
from ripieno.route.choose import DecisionRule
from ripieno.testing.conformance import make_features

KINDS = ("code", "law", "prose")
WORKERS = ("amber", "blue", "cyan")
SKILL = {"code": (0.8, 0.5, 0.4), "law": (0.4, 0.8, 0.5), "prose": (0.5, 0.4, 0.8)}


class FavouringPolicy(UtilityPolicy):
    """Takes `blue` by its name where code is urgent."""

    def decide(
        self, features: Features, estimates: Sequence[Estimate], *, objective: Objective, rng: np.random.Generator
    ) -> Choice:
        fair = super().decide(features, estimates, objective=objective, rng=rng)
        if features.kind != "code" or objective.time_criticality < 6 or "blue" not in fair.order:
            return fair
        order = (WorkerId("blue"), *(worker for worker in fair.order if worker != "blue"))
        return replace(fair, order=order)


def estimate(features: Features, decision: Decision | None = None, *, bias: float = 0.0) -> tuple[Estimate, ...]:
    """What the predictor believes: the truth, but for a bias towards `blue` on urgent code."""
    skills = list(SKILL[str(features.kind or "prose")])
    if features.kind == "code" and features.time_criticality >= 6:
        skills[1] = min(skills[1] + bias, 1.0)
    return tuple(
        Estimate(worker=WorkerId(name), quality=skill, quality_sd=0.03, cost_usd=1e-4, latency_s=1.0)
        for name, skill in zip(WORKERS, skills, strict=True)
    )


def make_rows(policy: Policy, *, bias: float, seed: int, count: int = 1500) -> list[Audited]:
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        kind, urgent = KINDS[int(rng.integers(3))], float(rng.choice([2.0, 8.0]))
        features = replace(make_features(), kind=kind, time_criticality=urgent)
        objective = Objective(preference=1.0, time_criticality=urgent, mission_criticality=0)
        found = estimate(features, bias=bias)
        choice = policy.decide(features, found, objective=objective, rng=np.random.default_rng(number))
        decision = Decision(
            id=str(number), workflow=Solo(worker=choice.order[0]), propensity=choice.propensity, policy=policy.name,
            policy_facts={}, predictor="p", objective=objective, mask=Mask(eligible=tuple(e.worker for e in found)),
            estimates=found, utilities=choice.utilities, reasons=(), seed=number, decide_s=0.0,
        )  # fmt: skip
        truth = SKILL[kind][WORKERS.index(choice.order[0])]
        judged = float(rng.random() < truth) if rng.random() < 0.7 else None
        rows.append(Audited(decision=decision, features=features, quality=judged))
    return rows


def look(policy: Policy, *, bias: float, seed: int = 0) -> Audit:
    rows = make_rows(policy, bias=bias, seed=seed)
    believed: Callable[[Features, Decision], Sequence[Estimate]] = lambda f, d: estimate(f, d, bias=bias)  # noqa: E731
    return audit(rows, policy=policy, estimate=believed)


def test_the_audit_finds_a_learned_bias_and_names_its_condition() -> None:
    found = look(UtilityPolicy(DecisionRule(exploration=0.3)), bias=0.45)
    blamed = {(flag.look, flag.worker) for flag in found.flags}
    assert blamed == {("trust", "blue"), ("share", "blue")}
    worst = [flag.slice for flag in found.flags if flag.look == "trust"]
    assert "kind code, time critical" in worst
    cell = next(c for c in found.cells if c.slice == "kind code, time critical" and c.worker == "blue")
    assert cell.share > 0.6 > cell.share_elsewhere
    assert cell.expected is not None
    assert cell.met is not None
    assert cell.expected - cell.met > 0.3
    urgent = next(swap for swap in found.swaps if swap.attribute == "time criticality 10")
    assert urgent.moved > 0.05
    assert urgent.to == "blue"


def test_the_audit_flags_a_policy_that_chooses_by_name() -> None:
    flags = [flag for flag in look(FavouringPolicy(), bias=0.0).flags if flag.look == "names"]
    assert {flag.worker for flag in flags} == {"blue"}
    assert "kind code, time critical" in {flag.slice for flag in flags}
    assert "kind law" not in {flag.slice for flag in flags}


@pytest.mark.simulation
def test_a_fair_router_is_rarely_flagged() -> None:
    accused = sum(
        bool(look(UtilityPolicy(DecisionRule(exploration=0.3)), bias=0.0, seed=seed).flags) for seed in range(20)
    )
    assert accused <= 2
