"""Logs: decisions of traffic with what came of them, as the ledger holds them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.domain import Decided, Decision, Executed, Judged, Run, Solo, Task, WorkerId
from ripieno.evaluate.offpolicy import Logged
from ripieno.ledger import Ledger
from ripieno.route.explain import read_terms
from ripieno.route.utility import score_outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    """One decision, and what came of it."""

    decision: Decision
    task: Task
    run: Run | None
    quality: float | None
    """The last finding about the run; None where nobody has judged it."""

    @property
    def is_realised(self) -> bool:
        """Whether the chosen worker itself answered: a fallback's outcome says nothing of the choice."""
        return self.run is not None and self.run.worker == self.decision.worker

    @property
    def utility(self) -> float:
        """What the outcome was worth to the caller; the run must be judged."""
        assert self.run is not None
        assert self.quality is not None
        scales = read_terms(self.decision).scales
        return score_outcome(self.quality, self.run.cost_usd, self.run.latency_s, self.decision.objective, scales)


def read_decisions(ledger: Ledger) -> Iterator[LoggedDecision]:
    """All decisions of traffic in which a policy chose one worker, oldest first; a named worker was not chosen."""
    runs: dict[str, Run] = {}
    qualities: dict[str, float] = {}
    for stored in ledger.read(kinds=("executed", "judged")):
        if isinstance(stored.entry, Executed) and stored.entry.run.decision is not None:
            runs[stored.entry.run.decision] = stored.entry.run
        elif isinstance(stored.entry, Judged):
            qualities[stored.entry.run] = stored.entry.verdict.quality
    for stored in ledger.read(kinds=("decided",)):
        if isinstance(stored.entry, Decided) and stored.entry.decision.estimates:
            if not isinstance(stored.entry.decision.workflow, Solo):
                continue
            decision = stored.entry.decision
            run = runs.get(decision.id)
            quality = qualities.get(run.id) if run is not None else None
            yield LoggedDecision(decision=decision, task=stored.entry.task, run=run, quality=quality)


def make_log(rows: Sequence[LoggedDecision]) -> tuple[Logged, tuple[WorkerId, ...]]:
    """Judged decisions as arrays, rewards in utility; gives the workers of the columns, too.

    Args:
        rows: at least one; each judged and realised.
    """
    workers = tuple(sorted({worker for row in rows for worker in row.decision.utilities}))
    column = {worker: index for index, worker in enumerate(workers)}
    expected = np.full((len(rows), len(workers)), np.nan)
    for index, row in enumerate(rows):
        for worker, utility in row.decision.utilities.items():
            expected[index, column[worker]] = utility
    log = Logged(
        action=np.array([column[row.decision.worker] for row in rows]),
        propensity=np.array([row.decision.propensity for row in rows]),
        reward=np.array([row.utility for row in rows]),
        expected=expected,
    )
    return log, workers
