"""Trust: calibrates a verifier's qualities by later outcomes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A monotone map from a verifier's quality to the share of accepted answers."""

    found: tuple[float, ...]
    """Qualities that the verifier gave, rising, in [0, 1]."""
    accepted: tuple[float, ...]
    """Share accepted at each of them, in [0, 1]."""
    outcomes: int

    def apply(self, verdict: Verdict) -> Verdict:
        """Replace the verdict's quality with the probability that its answer is accepted."""
        held = float(np.interp(verdict.quality, self.found, self.accepted))
        detail = f"{verdict.detail}; such answers were accepted {held:.0%} of the time".removeprefix("; ")
        return replace(verdict, quality=held, detail=detail, found=verdict.quality)


def calibrate(verdict: Verdict, trusted: Mapping[str, Trust]) -> Verdict:
    """Calibrate a verdict by its verifier's record. Without enough outcomes, it stays unchanged."""
    trust = trusted.get(verdict.verifier)
    return verdict if trust is None else trust.apply(verdict)
