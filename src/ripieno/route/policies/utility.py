"""The default policy: the decision rule on one task, with its reasons in words."""

from collections.abc import Mapping, Sequence

import numpy as np

from ripieno.domain import Choice, Estimate, Features, JsonValue, Objective, WorkerId
from ripieno.route.choose import DecisionRule, abstain, choose, explore, find_plausible, gather_estimates, rank
from ripieno.route.utility import Scales


class UtilityPolicy:
    """Greedy in utility, guarded, with an exploration share spread evenly over plausible workers.

    Args:
        exploration: probability of trying a plausible worker at random, in [0, 1).
        scales: the ordinary price and wait that utility is measured against.
        margin: quality by which a worker must be ahead of the incumbent, who would lead if quality did not depend on
            the task.
        has_ladder: whether new workers climb from shadow over trial to free.
    """

    name = "utility"

    def __init__(
        self, *, exploration: float = 0.0, scales: Scales | None = None, margin: float = 0.0, has_ladder: bool = True
    ) -> None:
        self.rule = DecisionRule(
            exploration=exploration, scales=scales or Scales(), margin=margin, has_ladder=has_ladder
        )

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """The policy's parameters."""
        return self.rule.facts

    def decide(
        self,
        features: Features,
        estimates: Sequence[Estimate],
        *,
        objective: Objective,
        rng: np.random.Generator,
    ) -> Choice:
        """Order the workers by utility; those below the quality floor, and new ones, come last."""
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
            reasons.insert(0, f"no answer is better than one of quality {quality:.2f}, the best to be expected")
        return Choice(
            order=tuple(dict.fromkeys((workers[chosen], workers[leader], *order))),
            propensity=propensity,
            utilities=utilities,
            reasons=tuple(reasons),
            abstains=abstains,
        )


def _explain_lead(leader: WorkerId, ranked: Sequence[WorkerId], utilities: Mapping[WorkerId, float]) -> str:
    """Say why the leader leads. The first of `ranked` has the highest utility of those that may lead."""
    best = ranked[0]
    if leader != best:
        lead = utilities[best] - utilities[leader]
        return f"{leader} is the best single worker, and {best} is ahead by {lead:.3f} only: too little to be trusted"
    if len(ranked) == 1:
        return f"{best} is the only eligible worker"
    lead = utilities[best] - utilities[ranked[1]]
    return f"{best} has the highest utility, {utilities[best]:.3f}, {lead:.3f} ahead of {ranked[1]}"
