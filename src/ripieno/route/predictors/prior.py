"""The predictor before anything was measured: worker cards only."""

from collections.abc import Mapping, Sequence

from ripieno.domain import Estimate, Features, Worker
from ripieno.route.predictors.trained import PRIOR_OUTPUT_TOKENS, UNMEASURED_SD


class PriorPredictor:
    """Gives every worker the same quality and the cost of its price list, so that the cheapest goes first."""

    version = "prior"

    def estimate(self, features: Features, workers: Sequence[Worker]) -> tuple[Estimate, ...]:
        """Estimate one task on each of `workers`, in order."""
        return tuple(
            Estimate(
                worker=worker.id,
                quality=0.5,
                quality_sd=UNMEASURED_SD,
                cost_usd=worker.price.charge(
                    input_tokens=features.prompt_tokens, output_tokens=PRIOR_OUTPUT_TOKENS, cpu_s=1.0
                ),
                latency_s=1.0,
                is_measured=False,
            )
            for worker in workers
        )

    def infer_kind(self, features: Features) -> str | None:
        """Nothing is known."""
        return None

    def advise(self, features: Features) -> Mapping[str, float]:
        """Nothing is known."""
        return {}
