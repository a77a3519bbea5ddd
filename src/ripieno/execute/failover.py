"""Failover: which workers may be called after one has failed, by the cause of the failure."""

from collections.abc import Sequence

from ripieno.domain import Worker
from ripieno.errors import Cause, ProviderError, ProviderRejected

MOST_REFUSALS = 2
"""Workers that refuse a request without a known cause before the request counts as wrong."""


def choose_next(workers: Sequence[Worker], failed: Worker, error: ProviderError, *, refusals: int) -> list[Worker]:
    """Return the workers that may be called next, in order.

    Args:
        workers: the workers that are left.
        failed: the worker that failed last.
        error: its failure.
        refusals: workers so far that refused the request without blame, the last one included.
    """
    if is_refusal(error):
        assert isinstance(error, ProviderRejected)
        if error.cause is Cause.CONTEXT:
            return [worker for worker in workers if _may_have_room(worker, failed)]
        if error.cause is Cause.REQUEST and refusals >= MOST_REFUSALS:
            return []
    return list(workers)


def is_refusal(error: ProviderError) -> bool:
    """Return whether a worker refused this request, and would take others."""
    return isinstance(error, ProviderRejected) and not error.blames_worker


def _may_have_room(worker: Worker, failed: Worker) -> bool:
    if worker.context_window is None or failed.context_window is None:
        return True
    return worker.context_window > failed.context_window
