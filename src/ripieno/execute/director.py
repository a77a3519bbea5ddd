"""Director: chooses each next step of a run of turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ripieno.domain import Step, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Result of one step."""

    step: Step
    worker: WorkerId
    """The worker that did the step."""
    text: str
    """The result as later steps see it: of a verifier its verdict; empty if no worker could do it."""
    accepts: bool | None = None
    """Verdict of a verifier; None if it gave none, and for all other steps."""


class Director(Protocol):
    """Chooses the steps of one run, one by one."""

    async def choose(self, seen: Sequence[Turn]) -> Step | None:
        """Choose the next step; None accepts the latest answer. The first step is never None."""
        ...
