"""Trust: what a verifier's findings have been worth, by the outcomes that came after them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A rising map from what a verifier finds to the share of such answers that were accepted."""

    found: tuple[float, ...]
    """Qualities that it gave, rising, in [0, 1]."""
    accepted: tuple[float, ...]
    """Share accepted at each of them, in [0, 1]."""
    outcomes: int
    """How many it was learned from."""

    def apply(self, verdict: Verdict) -> Verdict:
        """The verdict with the probability that its answer is accepted in place of what was found."""
        held = float(np.interp(verdict.quality, self.found, self.accepted))
        told = f"{verdict.detail}; such answers were accepted {held:.0%} of the time".removeprefix("; ")
        return replace(verdict, quality=held, detail=told, found=verdict.quality)


def hold(verdict: Verdict, trusted: Mapping[str, Trust]) -> Verdict:
    """A verdict as far as its verifier is to be trusted; one of whom too little is known is taken at its word."""
    trust = trusted.get(verdict.verifier)
    return verdict if trust is None else trust.apply(verdict)
