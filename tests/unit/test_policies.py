"""Policies: order, floor, exploration, rules."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ripieno.domain import Estimate, Need, Objective, Standing
from ripieno.errors import ConfigError
from ripieno.plugins import build_plugin, load_plugin
from ripieno.route import RulePolicy, UtilityPolicy
from ripieno.route.choose import TRIAL_SHARE, DecisionRule
from ripieno.route.plugins import PolicyOptions
from ripieno.testing import check_policy
from ripieno.testing.conformance import make_features

RNG = np.random.default_rng(0)


def test_built_in_policies_pass_the_kit(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nworkers = ["strong"]\nleast_prompt_tokens = 5\n')
    check_policy(UtilityPolicy())
    check_policy(UtilityPolicy(DecisionRule(exploration=0.1)))
    check_policy(RulePolicy.load(rules, otherwise=UtilityPolicy()))


def test_the_floor_puts_weak_workers_last(make_estimate: Callable[..., Estimate]) -> None:
    cheap = make_estimate("cheap", quality=0.5, cost_usd=0.0)
    strong = make_estimate("strong", quality=0.7, cost_usd=10.0)
    objective = Objective(preference=0.2, mission_criticality=0)
    policy = UtilityPolicy()
    free = policy.decide(make_features(), [cheap, strong], objective=objective, rng=RNG)
    assert free.order == ("cheap", "strong")
    floored = policy.decide(make_features(), [cheap, strong], objective=replace(objective, quality_floor=0.6), rng=RNG)
    assert floored.order == ("strong", "cheap")
    beyond = policy.decide(make_features(), [cheap, strong], objective=replace(objective, quality_floor=0.9), rng=RNG)
    assert "no eligible worker is expected to reach quality 0.90" in beyond.reasons


def test_critical_tasks_are_never_explored(make_estimate: Callable[..., Estimate]) -> None:
    estimates = [make_estimate("a", quality=0.6), make_estimate("b", quality=0.59)]
    policy = UtilityPolicy(DecisionRule(exploration=0.5))
    grave = Objective(mission_criticality=7)
    starts = {
        policy.decide(make_features(), estimates, objective=grave, rng=np.random.default_rng(s)).order[0]
        for s in range(40)
    }
    assert starts == {"a"}
    calm = [
        policy.decide(make_features(), estimates, objective=Objective(), rng=np.random.default_rng(s))
        for s in range(40)
    ]
    tried = [choice for choice in calm if choice.order[0] == "b"]
    assert tried
    assert {choice.propensity for choice in tried} == {0.25}
    assert tried[0].reasons == ("tried out: one of 2 plausible workers",)


def test_implausible_workers_are_not_explored(make_estimate: Callable[..., Estimate]) -> None:
    estimates = [make_estimate("a", quality=0.9, quality_sd=0.01), make_estimate("b", quality=0.1, quality_sd=0.01)]
    policy = UtilityPolicy(DecisionRule(exploration=0.5))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        choice = policy.decide(make_features(), estimates, objective=Objective(), rng=rng)
        assert (choice.order[0], choice.propensity) == ("a", 1.0)


def test_the_first_rule_that_matches_names_the_worker(tmp_path: Path, make_estimate: Callable[..., Estimate]) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        """
[[rule]]
needs = ["json"]
workers = ["gone"]

[[rule]]
kind = "maths"
most_prompt_tokens = 100
workers = ["dear", "cheap"]

[[rule]]
least_mission_criticality = 9
workers = ["dear"]
"""
    )
    policy = RulePolicy.load(path, otherwise=UtilityPolicy())
    estimates = [make_estimate("cheap", cost_usd=0.0), make_estimate("dear", cost_usd=9.0), make_estimate("other")]
    features = replace(make_features(), needs=frozenset({Need.JSON}), kind="maths")
    choice = policy.decide(features, estimates, objective=Objective(), rng=RNG)
    assert choice.order == ("dear", "cheap", "other")
    assert choice.reasons == ("rule 2 names dear",)
    unmatched = policy.decide(make_features(), estimates, objective=Objective(), rng=RNG)
    assert unmatched.order[0] == "cheap"
    grave = replace(make_features(), mission_criticality=9.5)
    assert policy.decide(grave, estimates, objective=Objective(), rng=RNG).order[0] == "dear"


@pytest.mark.parametrize(
    ("text", "told"),
    [("[[rule]]\nworker = 'x'", "rule.0"), ("[[rule", "rules.toml"), ("[[rule]]\nworkers = []", "rule.0.workers")],
)
def test_a_broken_rules_file_is_refused_by_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        RulePolicy.load(path, otherwise=UtilityPolicy())


def test_a_rule_that_names_only_an_unknown_worker_is_skipped(
    tmp_path: Path, make_estimate: Callable[..., Estimate]
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[[rule]]\nworkers = ['new']\n")
    policy = RulePolicy.load(path, otherwise=UtilityPolicy(DecisionRule(exploration=0.5)))
    estimates = [make_estimate("a"), make_estimate("b"), make_estimate("new", standing=Standing.MASKED)]
    for seed in range(10):
        choice, plain = (
            each.decide(make_features(), estimates, objective=Objective(), rng=np.random.default_rng(seed))
            for each in (policy, policy.otherwise)
        )
        assert choice == plain, "order, probability and reasons are those of the policy that chose"


def test_the_rules_plugin_follows_its_file(tmp_path: Path, make_estimate: Callable[..., Estimate]) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[[rule]]\nworkers = ['b']\n")
    policy = build_plugin("ripieno.policies", "rules", {"rules": path, "exploration": 0.1}, key="route")
    assert isinstance(policy, RulePolicy)
    assert policy.facts["exploration"] == 0.1
    found = policy.decide(make_features(), [make_estimate("a"), make_estimate("b")], objective=Objective(), rng=RNG)
    assert found.order == ("b", "a")


def test_the_rules_policy_needs_a_file() -> None:
    plugin = load_plugin("ripieno.policies", "rules")
    with pytest.raises(ConfigError, match="needs a rules file"):
        plugin.make(PolicyOptions())  # type: ignore[attr-defined]  # a Plugin


def test_a_lead_within_the_margin_keeps_the_best_single_worker_and_the_reason_says_so(
    make_estimate: Callable[..., Estimate],
) -> None:
    usual = make_estimate("usual", quality=0.70, mean_quality=0.72)
    rival = make_estimate("rival", quality=0.73, mean_quality=0.60)
    policy = UtilityPolicy(DecisionRule(margin=0.1))
    choice = policy.decide(
        make_features(), [usual, rival], objective=Objective(preference=1.0), rng=np.random.default_rng(0)
    )
    assert choice.order == ("usual", "rival")
    assert "usual is the best single worker, and rival leads by only 0.030" in choice.reasons[0]
    assert policy.facts["margin"] == 0.1


def test_rules_match_kind_domain_and_language(tmp_path: Path, make_estimate: Callable[..., Estimate]) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        """
[[rule]]
language = "fr"
workers = ["b"]

[[rule]]
domain = "tax"
workers = ["c"]

[[rule]]
kind = "law"
workers = ["b"]
"""
    )
    policy = RulePolicy.load(path, otherwise=UtilityPolicy())
    estimates = [make_estimate("a", quality=0.9), make_estimate("b"), make_estimate("c")]

    def first(**found: object) -> str:
        features = replace(make_features(), **found)  # type: ignore[arg-type]  # fields of Features
        return policy.decide(features, estimates, objective=Objective(), rng=RNG).order[0]

    assert first(language="fr", kind="law/tax") == "b"
    assert first(kind="law/tax") == "c"
    assert first(kind="law/sea") == "b"
    assert first(kind="cooking") == "a"
    assert first() == "a"


def test_new_workers_rise_on_the_ladder_only_while_another_worker_is_free(
    make_estimate: Callable[..., Estimate],
) -> None:
    old = make_estimate("old", quality=0.5)
    hidden = make_estimate("hidden", quality=0.99, standing=Standing.MASKED)
    shadow = make_estimate("shadow", quality=0.95, standing=Standing.SHADOW)
    trial = make_estimate("trial", quality=0.9, standing=Standing.TRIAL)
    everyone = [hidden, shadow, trial, old]
    policy = UtilityPolicy()
    starts = [
        policy.decide(make_features(), everyone, objective=Objective(), rng=np.random.default_rng(seed))
        for seed in range(1000)
    ]
    tried = [choice for choice in starts if choice.order[0] != "old"]
    assert {choice.order[0] for choice in tried} == {"trial"}
    assert {choice.propensity for choice in tried} == {TRIAL_SHARE}
    assert tried[0].reasons == ("trial is new and on trial",)
    assert 8 <= len(tried) <= 35
    usual = next(choice for choice in starts if choice.order[0] == "old")
    assert usual.order == ("old", "trial", "shadow"), "what nothing is known of does not even stand in"
    assert usual.propensity == pytest.approx(1.0 - TRIAL_SHARE)
    grave = Objective(mission_criticality=9)
    assert {
        policy.decide(make_features(), everyone, objective=grave, rng=np.random.default_rng(s)).order[0]
        for s in range(200)
    } == {"old"}
    hopeless = [old, replace(trial, quality=0.1, quality_sd=0.01)]
    assert {
        policy.decide(make_features(), hopeless, objective=Objective(), rng=np.random.default_rng(s)).order[0]
        for s in range(200)
    } == {"old"}
    assert policy.decide(make_features(), [hidden, shadow], objective=Objective(), rng=RNG).order[0] == "hidden"
    free = UtilityPolicy(DecisionRule(has_ladder=False))
    assert free.decide(make_features(), everyone, objective=Objective(), rng=RNG).order[0] == "hidden"


def test_nothing_is_explored_if_nothing_was_measured(make_estimate: Callable[..., Estimate]) -> None:
    estimates = [make_estimate(name, is_measured=False) for name in ("a", "b")]
    policy = UtilityPolicy(DecisionRule(exploration=0.5))
    for seed in range(20):
        choice = policy.decide(make_features(), estimates, objective=Objective(), rng=np.random.default_rng(seed))
        assert (choice.order[0], choice.propensity) == ("a", 1.0)
