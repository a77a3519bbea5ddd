"""Explanations say what would change a choice, and it does."""

from collections.abc import Callable
from dataclasses import replace

from ripieno.domain import Decision, Estimate, Mask, Objective, Reason, Solo, Why, WorkerId
from ripieno.route.explain import Terms, explain, find_spans, read_terms
from ripieno.route.utility import Scales, score_utility


def make_decision(estimates: tuple[Estimate, ...], scales: Scales) -> Decision:
    objective = Objective(preference=0.8)
    utilities = {e.worker: score_utility(e, objective, scales) for e in estimates}
    order = sorted(utilities, key=lambda worker: utilities[worker], reverse=True)
    return Decision(
        id="d", workflow=Solo(worker=order[0], fallbacks=tuple(order[1:])), propensity=1.0, policy="utility",
        policy_facts={"reference_cost_usd": scales.cost_usd, "reference_latency_s": scales.latency_s},
        predictor="p", objective=objective, mask=Mask(eligible=tuple(order), masked={WorkerId("gone"): Why(
            reason=Reason.MUTED, detail="unmute it")}), estimates=estimates, utilities=utilities, reasons=("r",),
        seed=1, decide_s=0.0,
    )  # fmt: skip


def test_every_change_that_is_named_would_change_it(make_estimate: Callable[..., Estimate]) -> None:
    scales = Scales(cost_usd=0.01, latency_s=1.0)
    cheap = make_estimate("cheap", quality=0.6, quality_sd=0.0, cost_usd=0.0001)
    strong = make_estimate("strong", quality=0.8, quality_sd=0.0, cost_usd=0.02)
    found = explain(make_decision((cheap, strong), scales))
    assert found.scored[0].estimate.worker == found.decision.worker
    assert [span.worker for span in found.spans] == ["cheap", "strong"]
    assert found.spans[0].low == 0.0
    assert found.spans[-1].high == 1.0
    rival = found.scored[1]
    needed = next(change for change in found.changes if "from an expected quality of" in change)
    quality = float(needed.split("quality of ")[1].split(" ")[0])
    better = replace(rival.estimate, quality=min(1.0, quality + 0.01))
    assert score_utility(better, found.decision.objective, scales) > found.scored[0].utility
    assert "gone is masked (muted): unmute it" in found.changes
    assert any(change.startswith("the dial between") for change in found.changes)


def test_a_rival_that_cannot_catch_up_is_not_promised_to(make_estimate: Callable[..., Estimate]) -> None:
    scales = Scales(cost_usd=0.001, latency_s=1.0)
    perfect = make_estimate("perfect", quality=1.0, quality_sd=0.0, cost_usd=0.0, latency_s=0.0)
    dear = make_estimate("dear", quality=0.5, quality_sd=0.0, cost_usd=100.0, latency_s=100.0)
    found = explain(make_decision((perfect, dear), scales))
    assert not [change for change in found.changes if "expected quality" in change]
    assert len(find_spans((perfect,), Objective(), Terms(scales=scales, margin=0.0))) == 1


def test_scales_fall_back_where_a_policy_has_none(make_estimate: Callable[..., Estimate]) -> None:
    decision = replace(make_decision((make_estimate(),), Scales()), policy_facts={})
    assert read_terms(decision) == Terms(scales=Scales(), margin=0.0)


def test_what_stands_behind_the_guard_is_told(make_estimate: Callable[..., Estimate]) -> None:
    usual = make_estimate("usual", quality=0.7, quality_sd=0.0, mean_quality=0.72)
    rival = make_estimate("rival", quality=0.72, quality_sd=0.0, mean_quality=0.6)
    guarded = replace(make_decision((usual, rival), Scales()), policy_facts={"margin": 0.05})
    guarded = replace(guarded, workflow=Solo(worker=usual.worker))
    found = explain(guarded)
    assert {span.worker for span in found.spans} == {"usual"}
    needed = next(change for change in found.changes if "rival would be taken" in change)
    assert float(needed.split("quality of ")[1].split(" ")[0]) == 0.75
