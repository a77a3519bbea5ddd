"""The types that the whole package speaks in: pure values, no I/O."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ripieno.domain.bound import Account, Bound, bound_call, cap_output
    from ripieno.domain.clock import Clock, SystemClock
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
    from ripieno.domain.price import FREE, UNKNOWN, Price, Tier, Usage
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
        sum_costs,
    )
    from ripieno.domain.task import Budget, JsonValue, Message, Mode, Objective, Privacy, Task
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

_HOMES = {
    "bound": "Account Bound bound_call cap_output",
    "clock": "Clock SystemClock",
    "entry": "Begun Claimed Configured Decided Entry Executed Judged Learned Promoted Proposed Resolved Staged Stepped",
    "features": "FeatureSchema Features Matrix Need Sensitivity Vector",
    "inputs": "Arrival DecisionInputs names_worker",
    "key": "Key KeyLimits Spend find_periods",
    "price": "FREE UNKNOWN Price Tier Usage",
    "routing": "Choice Decision Estimate Mask Reason RecordedInputs RoutingSetup Standing Why",
    "run": "Answer Call Failure Finding Origin Outcome Placement Run Unchecked Verdict sum_costs",
    "task": "Budget JsonValue Message Mode Objective Privacy Task",
    "worker": "Binding Pool Worker WorkerId parse_worker_id",
    "workflow": "Cascade Ensemble Merge Op Plan Solo Step Turns Verified Workflow least_calls list_named list_workers",
}
"""Where each name comes from."""
_FOUND = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Load a type when it is first asked for: a command's help needs few of them, and no numpy."""
    if name not in _FOUND:
        raise AttributeError(f"module 'ripieno.domain' has no attribute {name!r}")
    found: object = getattr(import_module(f"ripieno.domain.{_FOUND[name]}"), name)
    globals()[name] = found
    return found
