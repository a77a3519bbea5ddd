"""Hand-written rules: the first rule that matches names the worker; utility orders the others."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ripieno.domain import Choice, Estimate, Features, JsonValue, Need, Objective
from ripieno.errors import ConfigError
from ripieno.route.policies.utility import UtilityPolicy


class Rule(BaseModel):
    """One row of a rules file. All of its conditions must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: list[str] = Field(min_length=1)
    """Workers in order of preference."""
    kind: str | None = None
    """Kind of the task, stated or inferred; a kind with a domain is `kind/domain`."""
    domain: str | None = None
    """The domain in `kind/domain`."""
    language: str | None = None
    needs: list[Need] = Field(default_factory=list)
    least_prompt_tokens: int = 0
    most_prompt_tokens: int | None = None
    least_mission_criticality: float = 0.0

    def matches(self, features: Features) -> bool:
        """Return whether the rule applies to this task."""
        kind, _, domain = (features.kind or "").partition("/")
        return (
            (self.kind is None or self.kind in (features.kind, kind))
            and (self.domain is None or self.domain == domain)
            and (self.language is None or self.language == features.language)
            and set(self.needs) <= features.needs
            and features.prompt_tokens >= self.least_prompt_tokens
            and (self.most_prompt_tokens is None or features.prompt_tokens <= self.most_prompt_tokens)
            and features.mission_criticality >= self.least_mission_criticality
        )


class _RulesFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rule: list[Rule]


class RulePolicy:
    """Hand-written rules, and the utility policy where none applies."""

    name = "rules"

    def __init__(self, rules: Sequence[Rule], *, otherwise: UtilityPolicy) -> None:
        self.rules = tuple(rules)
        self.otherwise = otherwise

    @classmethod
    def load(cls, path: Path, *, otherwise: UtilityPolicy) -> "RulePolicy":
        """Read a rules file.

        Raises:
            ConfigError: the file is missing, or a rule is wrong. The message names the rule.
        """
        try:
            parsed = _RulesFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"rules file {str(path)!r}: {error}", key="route.rules", path=str(path)) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigError(
                f"rules file {str(path)!r}, {place}: {first['msg']}", key=place, path=str(path)
            ) from error
        return cls(parsed.rule, otherwise=otherwise)

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Return the parameters of the policy that orders the other workers."""
        return self.otherwise.facts

    def decide(
        self,
        features: Features,
        estimates: Sequence[Estimate],
        *,
        objective: Objective,
        rng: np.random.Generator,
    ) -> Choice:
        """Follow the first rule that matches and names an eligible worker."""
        choice = self.otherwise.decide(features, estimates, objective=objective, rng=rng)
        for number, rule in enumerate(self.rules, start=1):
            named = [worker for worker in rule.workers if worker in choice.order]
            if rule.matches(features) and named:
                first = tuple(worker for name in named for worker in choice.order if worker == name)
                return Choice(
                    order=(*first, *(worker for worker in choice.order if worker not in named)),
                    propensity=1.0,
                    utilities=choice.utilities,
                    reasons=(f"rule {number} names {named[0]}",),
                )
        return choice
