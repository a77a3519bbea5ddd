"""The built-in policies and predictors as plugins."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ripieno.errors import ConfigError
from ripieno.plugins import NoOptions, Plugin
from ripieno.route.choose import DecisionRule
from ripieno.route.policies import Policy, RulePolicy, UtilityPolicy
from ripieno.route.predictors import Learner, make_learner


class PolicyOptions(BaseModel):
    """Options of every policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exploration: float = Field(default=0.0, ge=0, lt=1)
    reference_cost_usd: float = Field(default=0.001, gt=0)
    reference_latency_s: float = Field(default=2.0, gt=0)
    margin: float = Field(default=0.0, ge=0)
    has_ladder: bool = True
    rules: Path | None = None


def _make_utility(options: PolicyOptions) -> UtilityPolicy:
    return UtilityPolicy(DecisionRule.read(options.model_dump(exclude={"rules"})))


def _make_rules(options: PolicyOptions) -> RulePolicy:
    if options.rules is None:
        raise ConfigError(
            "the policy 'rules' needs a rules file", key="route.rules", hint="set route.rules = 'rules.toml'"
        )
    return RulePolicy.load(options.rules, otherwise=_make_utility(options))


utility: Plugin[PolicyOptions, Policy] = Plugin(PolicyOptions, _make_utility)
rules: Plugin[PolicyOptions, Policy] = Plugin(PolicyOptions, _make_rules)


def _predictor(kind: str) -> Plugin[NoOptions, Learner]:
    return Plugin(NoOptions, lambda options: make_learner(kind))


stack, lowrank = _predictor("stack"), _predictor("lowrank")
kinds, heads = _predictor("kinds"), _predictor("heads")
