"""Mask: the eligible workers of a task. A policy can choose only eligible workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from ripieno.domain import Features, Mask, Need, Pool, Privacy, Reason, Task, Why, Worker, WorkerId, bound_call
from ripieno.errors import NoEligibleWorker
from ripieno.wires.carries import PLAIN, Feature, list_lost, require_unserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The current state of the workers, in addition to their cards."""

    today: date
    unavailable: Mapping[WorkerId, str] = field(default_factory=dict)
    """Workers that cannot be opened on this machine, with the missing part."""
    unhealthy: Mapping[WorkerId, str] = field(default_factory=dict)
    """Workers with an open breaker, with the error that opened it."""
    rate_limited: Mapping[WorkerId, str] = field(default_factory=dict)
    """Workers whose provider asked to wait, or which are at their concurrency limit."""
    load: Mapping[WorkerId, float] = field(default_factory=dict)
    """Running and waiting calls of each full worker, divided by its concurrency limit."""
    sensitive: Privacy | None = None
    """How far a task with secrets or personal data may travel; None sets no limit."""
    wires: Mapping[WorkerId, str] = field(default_factory=dict)
    """The wire format of each worker; empty for a worker that takes text alone."""
    named: frozenset[WorkerId] = frozenset()
    """Workers that the caller's own workflow names, in addition to those of the objective."""


def mask_workers(task: Task, features: Features, pool: Pool, conditions: Conditions) -> Mask:
    """Find the eligible workers, and the reason for each other worker.

    If only unhealthy workers remain, they are eligible, because the request would fail anyway.

    Raises:
        NoEligibleWorker: no worker is eligible; the error lists every reason.
    """
    masked: dict[WorkerId, Why] = {}
    for worker in pool:
        why = _find_why(worker, task, features, conditions)
        if why is not None:
            masked[worker.id] = why
    eligible = tuple(worker.id for worker in pool if worker.id not in masked)
    if eligible:
        return _prefer_carriers(task, Mask(eligible=eligible, masked=masked), conditions.wires)
    if any(why.reason is Reason.UNHEALTHY for why in masked.values()):
        return mask_workers(task, features, pool, replace(conditions, unhealthy={}))
    is_temporary = any(why.reason is Reason.RATE_LIMITED for why in masked.values())
    raise NoEligibleWorker(
        {worker: f"{why.reason} ({why.detail})" for worker, why in masked.items()}, is_temporary=is_temporary
    )


def _prefer_carriers(task: Task, mask: Mask, wires: Mapping[WorkerId, str]) -> Mask:
    """Mask the workers whose wire format would lose a part of the task that another eligible worker's carries.

    Raises:
        InvalidTask: the task needs a tool that no eligible worker's vendor runs.
    """
    lost = {wire: frozenset(list_lost(task, wire)) for wire in set(wires.values())}
    losses = {worker: lost[wires[worker]] for worker in mask.eligible if worker in wires}
    eligible, masked = mask.eligible, dict(mask.masked)
    for feature in sorted(frozenset[Feature]().union(*losses.values()) - PLAIN):
        carriers = tuple(worker for worker in eligible if feature not in losses.get(worker, ()))
        if not carriers:
            if feature is Feature.SERVED_TOOL:
                require_unserved(task)
            continue
        for worker in eligible:
            if worker not in carriers:
                detail = f"its wire format has no form for this part of the request: {feature.value}"
                masked[worker] = Why(reason=Reason.CANNOT_CARRY, detail=detail)
        eligible = carriers
    return Mask(eligible=eligible, masked=masked)


def find_able(pool: Pool, conditions: Conditions) -> tuple[WorkerId, ...]:
    """Find the workers that could take a task now. A rate limit does not count, because it ends by itself."""
    steady = replace(conditions, rate_limited={})
    return tuple(worker.id for worker in pool if _check_standing(worker, steady) is None)


def _find_why(worker: Worker, task: Task, features: Features, conditions: Conditions) -> Why | None:
    return (
        _check_standing(worker, conditions)
        or _check_permission(worker, task, features, conditions)
        or _check_ability(worker, features)
        or _check_size(worker, task, features)
        or _check_price(worker, task)
    )


def _check_standing(worker: Worker, conditions: Conditions) -> Why | None:
    if worker.is_muted:
        return Why(reason=Reason.MUTED, detail=f"unmute it with `ripieno pool unmute {worker.id}`")
    if worker.deprecated_on is not None and worker.deprecated_on <= conditions.today:
        return Why(reason=Reason.DEPRECATED, detail=f"since {worker.deprecated_on}")
    if worker.id in conditions.unavailable:
        return Why(reason=Reason.UNAVAILABLE, detail=conditions.unavailable[worker.id])
    if worker.id in conditions.unhealthy:
        return Why(reason=Reason.UNHEALTHY, detail=conditions.unhealthy[worker.id])
    if worker.id in conditions.rate_limited:
        return Why(reason=Reason.RATE_LIMITED, detail=conditions.rate_limited[worker.id])
    return None


def _check_permission(worker: Worker, task: Task, features: Features, conditions: Conditions) -> Why | None:
    objective = task.objective
    if objective.workers and worker.id not in objective.workers:
        return Why(reason=Reason.NOT_ALLOWED, detail=f"the request allows only {', '.join(objective.workers)}")
    if objective.allowed and worker.id not in objective.allowed:
        return Why(reason=Reason.NOT_ALLOWED, detail=f"the request may use only {', '.join(objective.allowed)}")
    if worker.is_restricted and worker.id not in objective.workers and worker.id not in conditions.named:
        why = "its calls have effects" if worker.has_effects else "its calls need a human's approval"
        return Why(reason=Reason.NOT_NAMED, detail=f"{why}; name it as the model or in `workers` to use it")
    if worker.privacy.reach > objective.privacy.reach:
        return Why(reason=Reason.PRIVACY, detail=f"worker is {worker.privacy}, task is {objective.privacy}")
    if features.sensitivity and conditions.sensitive is not None and worker.privacy.reach > conditions.sensitive.reach:
        holds = " and ".join(sorted(features.sensitivity))
        return Why(reason=Reason.PRIVACY, detail=f"worker is {worker.privacy}, and the task holds {holds} data")
    return None


def _check_ability(worker: Worker, features: Features) -> Why | None:
    if Need.TOOLS in features.needs and not worker.has_tools:
        return Why(reason=Reason.LACKS_TOOLS, detail=f"the task offers {features.tools} tools")
    if Need.JSON in features.needs and not worker.has_json_mode:
        return Why(reason=Reason.LACKS_JSON, detail="the task asks for JSON")
    for need in (Need.IMAGE, Need.AUDIO):
        if need in features.needs and need not in worker.modalities:
            return Why(reason=Reason.LACKS_MODALITY, detail=f"the task holds {need} parts")
    return None


def _check_size(worker: Worker, task: Task, features: Features) -> Why | None:
    limit = task.params.get("max_completion_tokens") or task.params.get("max_tokens")
    wanted = features.prompt_tokens + (limit if isinstance(limit, int) and not isinstance(limit, bool) else 0)
    if worker.context_window is not None and features.prompt_tokens >= worker.context_window:
        detail = f"the task needs about {wanted} tokens, and {worker.context_window} fit"
        return Why(reason=Reason.CONTEXT_TOO_SMALL, detail=detail)
    return None


def _check_price(worker: Worker, task: Task) -> Why | None:
    """Check that the budget, if there is one, pays for an answer of at least one token."""
    ceiling = task.budget.cost_usd
    if ceiling is None:
        return None
    bound = bound_call(worker, task)
    if bound is None:
        detail = f"the budget is ${ceiling:.6f}, and the price is unknown; "
        return Why(reason=Reason.UNKNOWN_PRICE, detail=f'{detail}state a price for {worker.id!r}, or price = "free"')
    if bound.least_usd > ceiling:
        return Why(reason=Reason.OVER_BUDGET, detail=f"at least ${bound.least_usd:.6f}, the budget is ${ceiling:.6f}")
    return None
