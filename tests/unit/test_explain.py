"""Explanations say what would change a choice, and it does."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ripieno.domain import Decision, Estimate, Mask, Objective, Reason, Solo, Standing, Why, WorkerId
from ripieno.route import UtilityPolicy
from ripieno.route.choose import DecisionRule, choose, gather_estimates
from ripieno.route.explain import explain, turn_dial
from ripieno.route.utility import Scales
from ripieno.testing.conformance import make_features


def make_decision(estimates: tuple[Estimate, ...], scales: Scales) -> Decision:
    objective = Objective(preference=0.8)
    found = choose(gather_estimates(estimates), objective, DecisionRule(scales=scales))
    utilities = dict(zip((e.worker for e in estimates), found.utility[0].tolist(), strict=True))
    order = sorted(utilities, key=lambda worker: utilities[worker], reverse=True)
    return Decision(
        id="d", workflow=Solo(worker=order[0], fallbacks=tuple(order[1:])), propensity=1.0, policy="utility",
        policy_facts={"reference_cost_usd": scales.cost_usd, "reference_latency_s": scales.latency_s},
        predictor="p", objective=objective, mask=Mask(eligible=tuple(order), masked={WorkerId("gone"): Why(
            reason=Reason.MUTED, detail="unmute it")}), estimates=estimates, utilities=utilities, reasons=("r",),
        seed=1, decide_s=0.0,
    )  # fmt: skip


def test_every_listed_change_would_change_the_choice(make_estimate: Callable[..., Estimate]) -> None:
    scales = Scales(cost_usd=0.01, latency_s=1.0)
    cheap = make_estimate("cheap", quality=0.6, quality_sd=0.0, cost_usd=0.0001)
    strong = make_estimate("strong", quality=0.8, quality_sd=0.0, cost_usd=0.02)
    found = explain(make_decision((cheap, strong), scales))
    assert found.scored[0].estimate.worker == found.decision.worker
    assert [span.worker for span in found.spans] == ["cheap", "strong"]
    assert found.spans[0].low == 0.0
    assert found.spans[-1].high == 1.0
    rival = found.scored[1]
    needed = next(change for change in found.changes if "at an expected quality of" in change)
    quality = float(needed.split("quality of ")[1].split(" ")[0])
    better = replace(rival.estimate, quality=min(1.0, quality + 0.01))
    again = replace(found.decision, estimates=(cheap, better) if better.worker == "strong" else (better, strong))
    assert turn_dial(again, found.decision.objective.preference).leader == rival.estimate.worker
    assert "gone is masked (muted): unmute it" in found.changes
    assert any(change.startswith("a dial between") for change in found.changes)


def test_no_change_is_listed_for_a_rival_that_can_never_lead(make_estimate: Callable[..., Estimate]) -> None:
    scales = Scales(cost_usd=0.001, latency_s=1.0)
    perfect = make_estimate("perfect", quality=1.0, quality_sd=0.0, cost_usd=0.0, latency_s=0.0)
    dear = make_estimate("dear", quality=0.5, quality_sd=0.0, cost_usd=100.0, latency_s=100.0)
    found = explain(make_decision((perfect, dear), scales))
    assert not [change for change in found.changes if "expected quality" in change]
    alone = explain(make_decision((perfect,), scales))
    assert len(alone.spans) == 1
    assert alone.changes == ("gone is masked (muted): unmute it",)


def test_the_floor_and_the_ladder_hold_at_every_setting_of_the_dial(make_estimate: Callable[..., Estimate]) -> None:
    cheap = make_estimate("cheap", quality=0.6, cost_usd=0.0)
    strong = make_estimate("strong", quality=0.8, cost_usd=0.02)
    new = make_estimate("new", quality=0.99, cost_usd=0.0, standing=Standing.TRIAL)
    decision = make_decision((cheap, strong, new), Scales())
    floored = replace(
        decision, objective=replace(decision.objective, quality_floor=0.7), workflow=Solo(worker=strong.worker)
    )
    found = explain(floored)
    assert [(span.low, span.high, span.worker) for span in found.spans] == [(0.0, 1.0, "strong")]
    assert not [change for change in found.changes if change.startswith("the dial")]


def test_the_current_dial_gives_the_recorded_utilities(make_estimate: Callable[..., Estimate]) -> None:
    estimates = make_estimate("known", cost_usd=0.5), make_estimate("secret", cost_usd=None, quality=0.6)
    policy = UtilityPolicy()
    objective = Objective(preference=0.6)
    choice = policy.decide(make_features(), estimates, objective=objective, rng=np.random.default_rng(0))
    decision = make_decision(estimates, Scales())
    decision = replace(decision, policy_facts=policy.facts, objective=objective, utilities=choice.utilities)
    assert turn_dial(decision, 0.6).utilities == choice.utilities
    assert turn_dial(decision, 0.6).leader == choice.order[0]


def test_the_explanation_contains_the_effect_of_the_guard(make_estimate: Callable[..., Estimate]) -> None:
    usual = make_estimate("usual", quality=0.7, quality_sd=0.0, mean_quality=0.72)
    rival = make_estimate("rival", quality=0.72, quality_sd=0.0, mean_quality=0.6)
    guarded = replace(make_decision((usual, rival), Scales()), policy_facts={"margin": 0.05})
    guarded = replace(guarded, workflow=Solo(worker=usual.worker))
    found = explain(guarded)
    assert {span.worker for span in found.spans} == {"usual"}
    needed = next(change for change in found.changes if "rival would be chosen" in change)
    assert float(needed.split("quality of ")[1].split(" ")[0]) == 0.75
