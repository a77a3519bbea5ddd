"""Director: who chooses each next step of a run of turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ripieno.domain import Step, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What came of one step."""

    step: Step
    worker: WorkerId
    """Who did it."""
    text: str
    """The result as later steps see it; of a verifier its verdict; empty where nobody could do it."""
    accepts: bool | None = None
    """What a verifier found; None where it gave no verdict, and of all other steps."""


class Director(Protocol):
    """Chooses the steps of one run, one by one."""

    async def choose(self, seen: Sequence[Turn]) -> Step | None:
        """The next step after what was seen; None takes the latest answer. The first one is never None."""
        ...
