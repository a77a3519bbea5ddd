"""What is read out of a ledger: entries with their places, and outcomes."""

from dataclasses import dataclass

from ripieno.domain import Entry, Outcome, Placement, Run, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An entry with its place in the record."""

    seq: int
    at: float
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One outcome with its place: what learning and evaluation read."""

    outcome: Outcome
    run: str
    version: str
    """Version of the worker that answered."""
    placement: Placement | None
    decision: str | None
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficOutcome:
    """The first finding about a run of traffic or of a probe: what is learned from one by one."""

    seq: int
    quality: float
    run: Run
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found."""

    entries: int
    tasks: int
    head: str
    """Digest of the last entry; keep it elsewhere to detect a cut tail."""
