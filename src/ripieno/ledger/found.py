"""Results of reads: entries with their places, and outcomes."""

from dataclasses import dataclass

from ripieno.domain import Entry, Outcome, Placement, Run, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An entry with its place in the ledger."""

    seq: int
    at: float
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One outcome with its run, for learning and evaluation."""

    outcome: Outcome
    run: str
    version: str
    """Version of the worker that answered."""
    placement: Placement | None
    decision: str | None
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficOutcome:
    """The first verdict on a run of traffic or of a probe, for online learning."""

    seq: int
    quality: float
    run: Run
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Result of `verify`."""

    entries: int
    tasks: int
    head: str
    """Digest of the last entry. Store it elsewhere to detect that later entries were removed."""
