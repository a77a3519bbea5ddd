"""Missing verdicts: answers of a campaign that no judge could grade, and the limit on them for a promotion.

Verdicts are rarely missing at random: a judge fails on long, odd or foreign answers. Means over the judged answers are
then biased.

Source:
    Manski (1990), Nonparametric bounds on treatment effects: with a share s of outcomes missing, a mean in [0, 1] is
    known only up to s.
"""

from collections.abc import Mapping

from ripieno.errors import GateRefused
from ripieno.learn.checkpoint import ModelCard, describe_missing
from ripieno.ledger import Ledger
from ripieno.tasks import RoutingData

MOST_MISSING = 0.05
"""Largest share of a worker's answers without a verdict. Its mean quality is then known up to 0.05."""


def count_missing(ledger: Ledger, data: RoutingData, versions: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Count answers without a verdict, and all answers, of each worker that has any without.

    Answers of other versions than those of the pool do not count.
    """
    judged: dict[str, int] = {}
    for column in data.model_index.tolist():
        name = data.models[column].id
        judged[name] = judged.get(name, 0) + 1
    missing: dict[str, int] = {}
    for run in ledger.outcomes.unjudged(data.name):
        if versions.get(run.worker) == run.calls[-1].worker_version:
            missing[run.worker] = missing.get(run.worker, 0) + 1
    return {worker: (count, count + judged.get(worker, 0)) for worker, count in sorted(missing.items())}


def check_missing(card: ModelCard) -> None:
    """Refuse a checkpoint if one of its workers lacks too many verdicts.

    Raises:
        GateRefused: more than `MOST_MISSING` of a worker's answers have none.
    """
    known = {worker: counts for worker, counts in card.unjudged.items() if worker in card.workers}
    bad = {worker: counts for worker, counts in known.items() if counts[0] > MOST_MISSING * counts[1]}
    if bad:
        raise GateRefused(
            f"more than {MOST_MISSING:.0%} of a worker's answers have no verdict: {describe_missing(bad)}",
            hint="run `ripieno profile` again once the judge works: it judges the recorded answers; then train again",
        )
