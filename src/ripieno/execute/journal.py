"""Journal: the steps of one run in the ledger, so that an interrupted run can continue."""

import asyncio
import os
import socket
from dataclasses import dataclass

import psutil

from ripieno.domain import Begun, Claimed, Clock, Executed, Proposed, Resolved, Stepped, WorkerId
from ripieno.ledger import Ledger

LEASE_S = 60.0
"""Seconds without an entry after which another machine's run counts as stranded, if its step takes no longer."""
APPROVAL_S = 24 * 3600.0
"""Default time for a human's approval, in seconds."""


def name_owner() -> str:
    """Name this process, so that others can find out whether it is alive."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def is_alive(owner: str) -> bool | None:
    """Return whether a process of this machine still runs; None if it is on another machine."""
    host, pid, began = owner.rsplit("/", 2)
    if host != socket.gethostname():
        return None
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(began)) < 0.1)
    except psutil.Error:
        return False


class Journal:
    """The record of one run's steps."""

    def __init__(self, ledger: Ledger, clock: Clock, run: str, owner: str) -> None:
        self.run = run
        self.owner = owner
        self.now = clock.now
        self._ledger = ledger
        self._steps: dict[str, Stepped] = {}
        self._begun: set[str] = set()
        self._resolved: dict[tuple[str, str], Resolved] = {}
        self._proposed: dict[tuple[str, str], Proposed] = {}

    def claim_new(self, *, key: str | None) -> Claimed:
        """Make the first claim of the run, which is recorded together with its decision."""
        return Claimed(run=self.run, owner=self.owner, key=key)

    def read(self) -> None:
        """Read the recorded entries of a run that was started before."""
        for stored in self._ledger.runs.entries_of(self.run):
            match stored.entry:
                case Stepped() as done:
                    self._steps[done.step] = done
                case Begun(step=step):
                    self._begun.add(step)
                case Proposed() as proposed:
                    self._proposed[proposed.step, proposed.digest] = proposed
                case Resolved() as resolved:
                    self._resolved.setdefault((resolved.step, resolved.digest), resolved)
                case _:
                    pass

    @property
    def steps(self) -> list[Stepped]:
        """Return the finished steps, in order."""
        return list(self._steps.values())

    def find(self, step: str) -> Stepped | None:
        """Find a finished step."""
        return self._steps.get(step)

    async def record(self, done: Stepped) -> None:
        """Record a finished step. It is durable when this returns."""
        self._steps[done.step] = done
        await self._ledger.append(done)

    async def begin(self, step: str, worker: WorkerId) -> bool:
        """Return whether a step with effects may start: True once, and never again."""
        if step in self._begun:
            return False
        self._begun.add(step)
        return await self._ledger.append(Begun(run=self.run, step=step, worker=worker)) == 1

    async def propose(self, proposed: Proposed) -> Proposed:
        """Ask a human for approval. An existing proposal stays, with its time."""
        place = (proposed.step, proposed.digest)
        if place not in self._proposed:
            await self._ledger.append(proposed)
            self._proposed[place] = proposed
        return self._proposed[place]

    def find_resolution(self, step: str, digest: str) -> Resolved | None:
        """Find the human's answer to a proposal."""
        return self._resolved.get((step, digest))

    async def resolve(self, resolved: Resolved) -> Resolved:
        """Record an answer. If one was recorded before, that one counts."""
        place = (resolved.step, resolved.digest)
        if await self._ledger.append(resolved) == 0:
            await asyncio.to_thread(self.read)
        return self._resolved.setdefault(place, resolved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A run of several steps without an end."""

    claim: Claimed
    at: float
    """Unix time of its latest entry."""
    proposal: Proposed | None
    """The proposal it waits for, if it waits for a human."""
    is_owned: bool
    """Whether a living process owns it."""


class Journals:
    """All runs of several steps."""

    def __init__(self, ledger: Ledger, clock: Clock, *, owner: str | None = None, lease_s: float = LEASE_S) -> None:
        self.owner = owner or name_owner()
        self._ledger = ledger
        self._clock = clock
        self._lease_s = lease_s

    def open(self, run: str) -> Journal:
        """Open the journal of a new run."""
        return Journal(self._ledger, self._clock, run, self.owner)

    async def take_over(self, found: Unfinished) -> Journal | None:
        """Claim a run without an owner. Return None if another process was faster."""
        claim = Claimed(run=found.claim.run, owner=self.owner, nth=found.claim.nth + 1, key=found.claim.key)
        if await self._ledger.append(claim) == 0:
            return None
        journal = self.open(claim.run)
        await asyncio.to_thread(journal.read)
        return journal

    def find(self, run: str) -> Unfinished | None:
        """Find a run by id, if it has no end yet."""
        entries = list(self._ledger.runs.entries_of(run))
        if not entries or any(isinstance(stored.entry, Executed) for stored in entries):
            return None
        claim, at = Claimed(run=run, owner="", nth=-1), 0.0
        proposals: dict[tuple[str, str], Proposed] = {}
        is_parked = False
        for stored in entries:
            at = stored.at
            match stored.entry:
                case Claimed() as claim:
                    is_parked = False
                case Proposed() as proposed:
                    proposals[proposed.step, proposed.digest] = proposed
                    is_parked = True
                case Resolved() as resolved:
                    proposals.pop((resolved.step, resolved.digest), None)
                case _:
                    pass
        lives = is_alive(claim.owner)
        is_fresh = self._clock.now() - at < self._lease_s
        is_owned = not is_parked and (is_fresh if lives is None else lives)
        waits = next(iter(proposals.values()), None)
        return Unfinished(claim=claim, at=at, proposal=waits, is_owned=is_owned)
