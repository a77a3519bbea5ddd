"""Decisions of traffic with their results, read from the ledger."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.domain import (
    Answer,
    Cascade,
    Decided,
    Decision,
    Executed,
    JsonValue,
    Judged,
    Plan,
    Privacy,
    Run,
    Solo,
    Task,
    Verdict,
    WorkerId,
    Workflow,
)
from ripieno.domain.conversation import ToolCall, ToolResult
from ripieno.evaluate.observed import Observed
from ripieno.evaluate.offpolicy import Logged
from ripieno.evaluate.questions import TrafficReport, answer
from ripieno.ledger import Ledger
from ripieno.route.choose import DecisionRule
from ripieno.route.utility import score_outcome
from ripieno.verify.schema import fits_schema

_FAULT = re.compile(
    r"\b(?:error|exception|traceback|failed|failure|timed? ?out|not found|denied|refused)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    """One decision, and its results."""

    decision: Decision
    task: Task
    run: Run | None
    quality: float | None
    """Quality of the latest verdict on the run; None without a verdict."""
    edited: float | None = None
    """Share of the answer that a correction changed; None without a correction."""
    at: float = 0.0
    """When it was decided, in seconds since 1970."""

    @property
    def is_realised(self) -> bool:
        """Return whether the chosen worker answered. The outcome of a fallback says nothing about the choice."""
        return self.run is not None and self.run.worker == self.decision.worker

    @property
    def utility(self) -> float:
        """Return the utility of the outcome. The run must be judged."""
        assert self.run is not None
        assert self.quality is not None
        scales = DecisionRule.read(self.decision.policy_facts).scales
        return score_outcome(self.quality, self.run.cost_usd, self.run.latency_s, self.decision.objective, scales)


def read_decisions(ledger: Ledger, *, last: int | None = None) -> Iterator[LoggedDecision]:
    """Yield decisions of traffic in which a policy chose one worker, oldest first.

    Args:
        ledger: the record.
        last: number of the latest decisions to read. Default: all.
    """
    for row in read_logged(ledger, last=last):
        if row.decision.estimates and isinstance(row.decision.workflow, Solo):
            yield row


def read_logged(ledger: Ledger, *, last: int | None = None) -> Iterator[LoggedDecision]:
    """Yield all decisions of traffic, oldest first; see `read_decisions`."""
    runs: dict[str, Run] = {}
    verdicts: dict[str, Verdict] = {}
    edits: dict[str, float] = {}
    start = ledger.decisions.find_start(last) if last is not None else 0
    for stored in ledger.read(kinds=("executed", "judged"), after=start):
        match stored.entry:
            case Executed(run=run) if run.decision is not None:
                runs[run.decision] = run
            case Judged(run=name, verdict=verdict) if not verdict.is_void:
                verdicts[name] = verdict
                if verdict.edited is not None:
                    edits[name] = verdict.edited
    for stored in ledger.read(kinds=("decided",), after=start):
        if isinstance(stored.entry, Decided):
            ended = runs.get(stored.entry.decision.id)
            last_verdict = verdicts.get(ended.id) if ended is not None else None
            yield LoggedDecision(
                decision=stored.entry.decision,
                task=stored.entry.task,
                run=ended,
                quality=last_verdict.quality if last_verdict is not None else None,
                edited=edits.get(ended.id) if ended is not None else None,
                at=stored.at,
            )


def make_report(
    ledger: Ledger, *, last: int | None, local: Mapping[str, int], datasets: Sequence[str]
) -> tuple[TrafficReport, list[Observed]]:
    """Make the report on traffic. Return the decisions that it reads, too.

    Args:
        ledger: the record.
        last: number of the latest decisions to read; None for all.
        local: concurrent tasks of each worker that runs on this machine.
        datasets: campaigns that measured several workers on the same tasks.
    """
    rows = observe(ledger, last=last)
    outcomes = (row.outcome for name in datasets for row in ledger.outcomes.measured(dataset=name))
    return answer(rows, local=local, outcomes=outcomes), rows


def observe(ledger: Ledger, *, last: int | None = None) -> list[Observed]:
    """List the decisions of traffic with at least one call, in the form of reports, oldest first."""
    return [_observe(row) for row in read_logged(ledger, last=last) if row.run is not None and row.run.calls]


def _observe(row: LoggedDecision) -> Observed:
    assert row.run is not None
    tools, faults = read_tools(row.task)
    made, bad = check_tool_calls(row.task, row.run.answer)
    decision, run = row.decision, row.run
    return Observed(
        kind=decision.kind or "unknown",
        key=run.key,
        worker=decision.worker,
        propensity=decision.propensity,
        expected={estimate.worker: estimate.quality for estimate in decision.estimates},
        calls=run.calls,
        step_kinds={call.step: name_step(decision.workflow, call.step) for call in run.calls},
        latency_s=run.latency_s or 0.0,
        is_private=decision.objective.privacy is not Privacy.PUBLIC,
        at=row.at,
        deadline_s=decision.objective.deadline_s,
        project=decision.project.rpartition("/")[2],
        is_solo=isinstance(decision.workflow, Solo),
        author=run.worker if run.answer is not None else None,
        input_tokens=run.calls[0].usage.input_tokens,
        quality=row.quality,
        edited=row.edited,
        tools=tools,
        faults=faults,
        tool_calls=made,
        bad_tool_calls=bad,
    )


def name_step(workflow: Workflow, step: str) -> str:
    """Name the operation of a plan's step, or the stage of a cascade; empty if one worker answers alone."""
    if isinstance(workflow, Solo) or not step:
        return ""
    number, _, part = step.partition(".")
    if part or not number.isdigit():
        return f"{part.partition('.')[0] or step}"
    if isinstance(workflow, Plan) and int(number) <= len(workflow.steps):
        return workflow.steps[int(number) - 1].op.value
    if isinstance(workflow, Cascade):
        return f"stage {number}"
    return type(workflow).__name__.lower()


def check_tool_calls(task: Task, answer: Answer | None) -> tuple[int, int]:
    """Count the tool calls of an answer, and those that name no offered tool or do not fit its schema."""
    offered = {}
    for tool in task.tools:
        function = tool.get("function")
        if isinstance(function, Mapping):
            offered[str(function.get("name"))] = function.get("parameters")
    made = answer.calls if answer is not None else ()
    return len(made), sum(not _fits(call, offered) for call in made)


def _fits(call: ToolCall, offered: Mapping[str, JsonValue]) -> bool:
    name = f"{call.namespace}{call.name}"
    if name not in offered:
        return False
    schema = offered[name]
    return call.is_custom or fits_schema(schema if isinstance(schema, Mapping) else {}, call.arguments or "{}")


def read_tools(task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the tools with results in a task, and those with a result that reads like a failure."""
    names: dict[str, str] = {}
    used: dict[str, bool] = {}
    for message in task.messages:
        names |= {call.id: call.name for call in message.calls}
        for part in message.parts:
            if isinstance(part, ToolResult):
                name = names.get(part.call, "unknown")
                is_fault = part.is_error or _FAULT.search(part.text[:2000]) is not None
                used[name] = used.get(name, False) or is_fault
    return tuple(used), tuple(name for name, has_failed in used.items() if has_failed)


def make_log(rows: Sequence[LoggedDecision]) -> tuple[Logged, tuple[WorkerId, ...]]:
    """Convert decisions into arrays, with rewards in utility. Return the workers of the columns, too.

    Args:
        rows: at least one decision, each judged and realised.
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
