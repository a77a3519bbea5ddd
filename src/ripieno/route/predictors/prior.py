"""The predictor before any measurement: worker cards only."""

from collections.abc import Sequence

from ripieno.domain import Estimate, Features, Worker
from ripieno.route.predictors.learner import Forecast

PRIOR_OUTPUT_TOKENS = 256.0
UNKNOWN_LATENCY_S = 1.0
"""Expected latency if none was measured."""
UNMEASURED_SD = 0.3
"""Standard deviation of the quality of a worker without outcomes: the spread of workers in the outcome sets."""


class PriorPredictor:
    """Expects the same quality of every worker, and the cost by its price list, so that the cheapest leads."""

    version = "prior"

    def forecast(self, features: Features, workers: Sequence[Worker]) -> Forecast:
        """Estimate one task on each of `workers`, in order."""
        estimates = tuple(
            Estimate(
                worker=worker.id,
                quality=0.5,
                quality_sd=UNMEASURED_SD,
                cost_usd=list_price(worker, features),
                latency_s=UNKNOWN_LATENCY_S,
                is_measured=False,
            )
            for worker in workers
        )
        return Forecast(estimates=estimates, kind=features.kind)


def list_price(worker: Worker, features: Features, output_tokens: float | None = None) -> float | None:
    """Return the cost of a call by the worker's price list. Default length: `PRIOR_OUTPUT_TOKENS`."""
    length = PRIOR_OUTPUT_TOKENS if output_tokens is None else output_tokens
    return worker.price.charge(input_tokens=features.prompt_tokens, output_tokens=length, cpu_s=1.0)
