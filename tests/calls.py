"""Calls of made-up runs."""

from ripieno.domain import Call, Usage, WorkerId
from ripieno.domain.run import Failure


def make_call(
    worker: str,
    *,
    tokens: int,
    cost_usd: float | None,
    failure: Failure | None = None,
    latency_s: float | None = None,
    attempts: int = 1,
    step: str = "",
) -> Call:
    return Call(
        worker=WorkerId(worker),
        worker_version="",
        usage=Usage(input_tokens=tokens, output_tokens=0),
        cost_usd=cost_usd,
        latency_s=latency_s,
        attempts=attempts,
        failure=failure,
        step=step,
    )
