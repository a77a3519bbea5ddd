"""The types that the whole package speaks in: pure values, no I/O."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ripieno.domain.bound import Account, Bound, bound_call, cap_output
    from ripieno.domain.clock import Clock, SystemClock
    from ripieno.domain.conversation import JsonValue, Message
    from ripieno.domain.entry import (
        Begun,
        Claimed,
        Configured,
        Decided,
        Entry,
        Executed,
        Judged,
        Learned,
        Promoted,
        Proposed,
        Resolved,
        Staged,
        Stepped,
    )
    from ripieno.domain.features import Features, FeatureSchema, Matrix, Need, Sensitivity, Vector
    from ripieno.domain.inputs import Arrival, DecisionInputs, names_worker
    from ripieno.domain.key import Key, KeyLimits, Spend, find_periods
    from ripieno.domain.objective import Budget, Mode, Objective, Privacy
    from ripieno.domain.price import FREE, UNKNOWN, Price, Tier, Usage, sum_costs
    from ripieno.domain.routing import (
        Choice,
        Decision,
        Estimate,
        Mask,
        Reason,
        RecordedInputs,
        RoutingSetup,
        Standing,
        Why,
    )
    from ripieno.domain.run import (
        Answer,
        Call,
        Failure,
        Finding,
        Origin,
        Outcome,
        Placement,
        Run,
        Unchecked,
        Verdict,
    )
    from ripieno.domain.task import Task
    from ripieno.domain.worker import Binding, Pool, Worker, WorkerId, parse_worker_id
    from ripieno.domain.workflow import (
        Cascade,
        Ensemble,
        Merge,
        Op,
        Plan,
        Solo,
        Step,
        Turns,
        Verified,
        Workflow,
        least_calls,
        list_named,
        list_workers,
    )

__all__ = [
    "FREE",
    "UNKNOWN",
    "Account",
    "Answer",
    "Arrival",
    "Begun",
    "Binding",
    "Bound",
    "Budget",
    "Call",
    "Cascade",
    "Choice",
    "Claimed",
    "Clock",
    "Configured",
    "Decided",
    "Decision",
    "DecisionInputs",
    "Ensemble",
    "Entry",
    "Estimate",
    "Executed",
    "Failure",
    "FeatureSchema",
    "Features",
    "Finding",
    "JsonValue",
    "Judged",
    "Key",
    "KeyLimits",
    "Learned",
    "Mask",
    "Matrix",
    "Merge",
    "Message",
    "Mode",
    "Need",
    "Objective",
    "Op",
    "Origin",
    "Outcome",
    "Placement",
    "Plan",
    "Pool",
    "Price",
    "Privacy",
    "Promoted",
    "Proposed",
    "Reason",
    "RecordedInputs",
    "Resolved",
    "RoutingSetup",
    "Run",
    "Sensitivity",
    "Solo",
    "Spend",
    "Staged",
    "Standing",
    "Step",
    "Stepped",
    "SystemClock",
    "Task",
    "Tier",
    "Turns",
    "Unchecked",
    "Usage",
    "Vector",
    "Verdict",
    "Verified",
    "Why",
    "Worker",
    "WorkerId",
    "Workflow",
    "bound_call",
    "cap_output",
    "find_periods",
    "least_calls",
    "list_named",
    "list_workers",
    "names_worker",
    "parse_worker_id",
    "sum_costs",
]

_MODULES = (
    "clock",
    "price",
    "objective",
    "worker",
    "key",
    "conversation",
    "task",
    "workflow",
    "run",
    "routing",
    "entry",
    "bound",
    "features",
    "inputs",
)
"""Modules of the names, in the order of their imports; only the last two import numpy."""


def __getattr__(name: str) -> object:
    """Import a name at its first use, because the help of a command needs few of them, and no numpy."""
    if name not in __all__:
        raise AttributeError(f"module 'ripieno.domain' has no attribute {name!r}")
    modules = (import_module(f"ripieno.domain.{module}") for module in _MODULES)
    found: object = next(getattr(module, name) for module in modules if hasattr(module, name))
    globals()[name] = found
    return found
