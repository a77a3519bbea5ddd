"""The default policy: the decision rule on one task, with its reasons in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ripieno.domain import Choice, Estimate, Features, JsonValue, Objective, WorkerId
from ripieno.route.choose import DecisionRule, abstain, choose, explore, find_plausible, gather_estimates, rank


@dataclass(slots=True)
class UtilityPolicy:
    """Greedy in utility, guarded, with an exploration share spread evenly over plausible workers."""

    name = "utility"
    rule: DecisionRule = field(default_factory=DecisionRule)

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Return the options of the rule."""
        return self.rule.facts

    def decide(
        self,
        features: Features,
        estimates: Sequence[Estimate],
        *,
        objective: Objective,
        rng: np.random.Generator,
    ) -> Choice:
        """Order the workers by utility. Workers below the quality floor and new workers come last."""
        arrays = gather_estimates(estimates)
        found = choose(arrays, objective, self.rule)
        leader = int(found.leader[0])
        ((chosen, propensity),) = explore(arrays, found, objective, self.rule, [rng])
        workers = [e.worker for e in estimates]
        utilities = dict(zip(workers, found.utility[0].tolist(), strict=True))
        order = [workers[place] for place in rank(found, 0).tolist()]
        if chosen == leader:
            reasons = [_explain_lead(workers[leader], order, utilities)]
        elif found.candidates[0, chosen]:
            count = np.count_nonzero(find_plausible(arrays, found))
            reasons = [f"tried out: one of {count} plausible workers"]
        else:
            reasons = [f"{workers[chosen]} is new and on trial"]
        quality = estimates[chosen].quality
        if objective.quality_floor and quality < objective.quality_floor:
            reasons.append(f"no eligible worker is expected to reach quality {objective.quality_floor:.2f}")
        abstains = objective.abstain_price is not None and bool(abstain(arrays, np.array([chosen]), objective)[0])
        if abstains:
            reasons.insert(0, f"no answer is worth more than the best expected answer, of quality {quality:.2f}")
        return Choice(
            order=tuple(dict.fromkeys((workers[chosen], workers[leader], *order))),
            propensity=propensity,
            utilities=utilities,
            reasons=tuple(reasons),
            abstains=abstains,
        )


def _explain_lead(leader: WorkerId, ranked: Sequence[WorkerId], utilities: Mapping[WorkerId, float]) -> str:
    """Explain why the leader leads. The first of `ranked` has the highest utility of the candidates."""
    best = ranked[0]
    if leader != best:
        lead = utilities[best] - utilities[leader]
        return f"{leader} is the best single worker, and {best} leads by only {lead:.3f}, less than the margin"
    if len(ranked) == 1:
        return f"{best} is the only eligible worker"
    lead = utilities[best] - utilities[ranked[1]]
    return f"{best} has the highest utility, {utilities[best]:.3f}, {lead:.3f} ahead of {ranked[1]}"
