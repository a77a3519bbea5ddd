"""Reports: all questions answered from what the ledger holds."""

from collections.abc import Mapping, Sequence

from ripieno.evaluate.observed import Observed
from ripieno.evaluate.questions import TrafficReport, answer
from ripieno.learn.logs import observe
from ripieno.ledger import Ledger


def make_report(
    ledger: Ledger, *, last: int | None, local: Mapping[str, int], datasets: Sequence[str]
) -> tuple[TrafficReport, list[Observed]]:
    """Answer all questions; gives the decisions that were looked at, too.

    Args:
        ledger: the record.
        last: how many of the latest decisions; all if not given.
        local: workers that run on this machine, with how many tasks each takes at once.
        datasets: campaigns in which several workers were measured on the same tasks.
    """
    rows = observe(ledger, last=last)
    outcomes = (row.outcome for name in datasets for row in ledger.outcomes.measured(dataset=name))
    return answer(rows, local=local, outcomes=outcomes), rows
