"""Pool: each worker with its state, price, limits and measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ripieno.app import Installation
from ripieno.dashboard.page import Page, PageRequest, render
from ripieno.dashboard.traffic import view_traffic
from ripieno.dashboard.views import Views
from ripieno.domain import Price, Privacy, Standing, Worker, WorkerId
from ripieno.evaluate.questions import SpendRow

_SETTLED = 0.0
"""Uncertainty in place of a task's, which this page does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """One worker."""

    worker: Worker
    state: str
    """`ready`, `muted`, `resting`, `waiting` or `full`."""
    detail: str
    price: str
    standing: Standing | None
    mean: float | None
    """Mean quality over the tasks that the checkpoint was trained on."""
    spend: SpendRow | None
    """Its spend in the latest decisions."""


async def show(app: Installation, views: Views, request: PageRequest) -> Page:
    """Show every worker of the pool."""
    kept = view_traffic(app, views)
    spends = {spend.name: spend for spend in kept.value.report.workers} if kept.value is not None else {}
    states = (
        ("resting", app.health.unhealthy()),
        ("waiting", app.health.rate_limited()),
        ("full", app.runtime.caller.lanes.crowded()),
    )
    rows = [_describe(app, worker, _find_state(worker, states), spends.get(worker.id)) for worker in app.runtime.pool]
    jobs = [job for job in request.jobs if job.name == "probe"]
    return Page(
        html=render(
            "pool.html",
            request,
            rows=rows,
            kept=kept,
            jobs=jobs,
            fault=app.reload_fault,
            providers=sorted(app.runtime.settings.providers),
            privacies=list(Privacy),
        )
    )


def _describe(app: Installation, worker: Worker, state: tuple[str, str], spend: SpendRow | None) -> WorkerRow:
    estimator = app.runtime.routing.router.estimator
    mean, standing = None, None
    if estimator is not None:
        standing = estimator.standing(worker.id, sd=_SETTLED)
        column = estimator.checkpoint.columns.get(worker.id)
        mean = float(estimator.checkpoint.means[column]) if column is not None else None
    return WorkerRow(
        worker=worker,
        state=state[0],
        detail=state[1],
        price=format_price(worker.price),
        standing=standing,
        mean=mean,
        spend=spend,
    )


def _find_state(worker: Worker, states: Sequence[tuple[str, Mapping[WorkerId, str]]]) -> tuple[str, str]:
    if worker.is_muted:
        return "muted", "gets no tasks until it is unmuted"
    return next(((state, found[worker.id]) for state, found in states if worker.id in found), ("ready", ""))


def format_price(price: Price) -> str:
    """Format a price in words."""
    if not price.is_known:
        return "unknown"
    parts = []
    if not price.prices_output:
        parts.append(f"${price.input_usd_per_mtok:g} in, unknown out a million tokens")
    elif price.input_usd_per_mtok or price.output_usd_per_mtok:
        parts.append(f"${price.input_usd_per_mtok:g} in, ${price.output_usd_per_mtok:g} out a million tokens")
    if price.usd_per_cpu_s:
        parts.append(f"${price.usd_per_cpu_s:.3g} a CPU second")
    if price.usd_per_call:
        parts.append(f"${price.usd_per_call:.3g} a call")
    return ", ".join(parts) or "free"
