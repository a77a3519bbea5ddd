"""The types that the whole package speaks in: pure values, no I/O."""

from ripieno.domain.clock import Clock, SystemClock
from ripieno.domain.entry import Decided, Entry, Executed, Judged, Learned, Promoted, Staged
from ripieno.domain.features import Features, Matrix, Need, Sensitivity, Vector
from ripieno.domain.key import Key, KeyLimits, Spend, find_periods
from ripieno.domain.routing import Choice, Decision, Estimate, Mask, Reason, Solo, Standing, Why, Workflow
from ripieno.domain.run import Answer, Call, Failure, Origin, Outcome, Placement, Run, Usage, Verdict
from ripieno.domain.task import Budget, JsonValue, Message, Objective, Privacy, Task
from ripieno.domain.worker import Binding, Pool, Price, Worker, WorkerId, parse_worker_id

__all__ = [
    "Answer",
    "Binding",
    "Budget",
    "Call",
    "Choice",
    "Clock",
    "Decided",
    "Decision",
    "Entry",
    "Estimate",
    "Executed",
    "Failure",
    "Features",
    "JsonValue",
    "Judged",
    "Key",
    "KeyLimits",
    "Learned",
    "Mask",
    "Matrix",
    "Message",
    "Need",
    "Objective",
    "Origin",
    "Outcome",
    "Placement",
    "Pool",
    "Price",
    "Privacy",
    "Promoted",
    "Reason",
    "Run",
    "Sensitivity",
    "Solo",
    "Spend",
    "Staged",
    "Standing",
    "SystemClock",
    "Task",
    "Usage",
    "Vector",
    "Verdict",
    "Why",
    "Worker",
    "WorkerId",
    "Workflow",
    "find_periods",
    "parse_worker_id",
]
