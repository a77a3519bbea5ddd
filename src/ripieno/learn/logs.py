"""Logs: decisions of traffic with what came of them, as the ledger holds them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.domain import Decided, Decision, Executed, Judged, Privacy, Run, Solo, Task, WorkerId
from ripieno.evaluate.offpolicy import Logged
from ripieno.evaluate.questions import Observed, Tried
from ripieno.ledger import Ledger
from ripieno.route.explain import read_terms
from ripieno.route.utility import score_outcome

_FAULT = re.compile(
    r"\b(?:error|exception|traceback|failed|failure|timed? ?out|not found|denied|refused)\b", re.IGNORECASE
)


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


def read_decisions(ledger: Ledger, *, last: int | None = None) -> Iterator[LoggedDecision]:
    """Decisions of traffic in which a policy chose one worker, oldest first; a named worker was not chosen.

    Args:
        ledger: the record.
        last: look at so many of the latest decisions, and at what came after the first of them; at all if not given.
    """
    runs: dict[str, Run] = {}
    qualities: dict[str, float] = {}
    start = ledger.find_start(last) if last is not None else 0
    for stored in ledger.read(kinds=("executed", "judged"), after=start):
        if isinstance(stored.entry, Executed) and stored.entry.run.decision is not None:
            runs[stored.entry.run.decision] = stored.entry.run
        elif isinstance(stored.entry, Judged):
            qualities[stored.entry.run] = stored.entry.verdict.quality
    for stored in ledger.read(kinds=("decided",), after=start):
        if isinstance(stored.entry, Decided) and stored.entry.decision.estimates:
            if not isinstance(stored.entry.decision.workflow, Solo):
                continue
            decision = stored.entry.decision
            run = runs.get(decision.id)
            quality = qualities.get(run.id) if run is not None else None
            yield LoggedDecision(decision=decision, task=stored.entry.task, run=run, quality=quality)


def observe(ledger: Ledger, *, last: int | None = None) -> list[Observed]:
    """Decisions of traffic as the reports ask about them, oldest first."""
    return [_observe(row) for row in read_decisions(ledger, last=last) if row.run is not None and row.run.calls]


def _observe(row: LoggedDecision) -> Observed:
    assert row.run is not None
    tools, faults = read_tools(row.task)
    return Observed(
        kind=row.decision.kind or "unknown",
        key=row.run.key,
        worker=row.decision.worker,
        propensity=row.decision.propensity,
        expected={estimate.worker: estimate.quality for estimate in row.decision.estimates},
        calls=tuple(
            Tried(
                worker=call.worker,
                failure=call.failure.value if call.failure is not None else None,
                tokens=call.tokens,
                cost_usd=call.cost_usd or 0.0,
            )
            for call in row.run.calls
        ),
        latency_s=row.run.latency_s or 0.0,
        is_private=row.decision.objective.privacy is not Privacy.PUBLIC,
        quality=row.quality,
        tools=tools,
        faults=faults,
    )


def read_tools(task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tools of which a task carries results, and those of which one is a failure, by its words."""
    names: dict[str, str] = {}
    used: dict[str, bool] = {}
    for message in task.messages:
        calls = message.extra.get("tool_calls")
        for call in calls if isinstance(calls, Sequence) and not isinstance(calls, str) else ():
            function = call.get("function") if isinstance(call, Mapping) else None
            if isinstance(call, Mapping) and isinstance(function, Mapping):
                names[str(call.get("id"))] = str(function.get("name"))
        if message.role == "tool":
            name = names.get(str(message.extra.get("tool_call_id")), "unknown")
            used[name] = used.get(name, False) or _FAULT.search(message.text[:2000]) is not None
    return tuple(used), tuple(name for name, has_failed in used.items() if has_failed)


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
