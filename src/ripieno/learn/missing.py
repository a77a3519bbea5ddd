"""Missing verdicts: how many answers of a campaign no judge could grade, and when that forbids a promotion.

Answers without a verdict are seldom missing by chance: a judge fails on long, odd or foreign answers. Means over those
that were judged then flatter or harm their workers.

Source:
    Manski (1990), Nonparametric bounds on treatment effects: with a share s of outcomes missing, a mean in [0, 1] is
    known only up to s.
"""

from collections.abc import Mapping

from ripieno.errors import GateRefused
from ripieno.learn.checkpoint import ModelCard
from ripieno.ledger import Ledger
from ripieno.tasks import RoutingData

MOST_MISSING = 0.05
"""Share of a worker's answers that may lack a verdict: its mean quality is then known up to five hundredths."""


def count_missing(ledger: Ledger, data: RoutingData, versions: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Answers without a verdict, and all answers, of each worker that has any without.

    Args:
        ledger: the record.
        data: what was gathered of one campaign.
        versions: the pool's workers in their present versions; answers of others do not count.
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


def describe_missing(unjudged: Mapping[str, tuple[int, int]]) -> str:
    """Who lacks verdicts, in words; empty where nobody does."""
    return ", ".join(f"{worker} {missing} of {answers}" for worker, (missing, answers) in unjudged.items())


def check_missing(card: ModelCard) -> None:
    """Refuse a checkpoint whose workers lack too many verdicts; a worker that it does not know harms nobody.

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
