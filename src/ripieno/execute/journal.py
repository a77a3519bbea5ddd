"""Journal: the steps of one run as the ledger has them, so that a run that was cut off goes on where it was."""

import asyncio
import os
import socket
from dataclasses import dataclass

import psutil

from ripieno.domain import Begun, Claimed, Clock, Executed, Proposed, Resolved, Stepped, WorkerId
from ripieno.ledger import Ledger

LEASE_S = 60.0
"""A run of another machine that has recorded nothing for so long, and whose step takes no longer, is stranded."""
APPROVAL_S = 24 * 3600.0
"""How long a human may take, where nothing else is said."""


def name_owner() -> str:
    """Name of the running process, by which others find out whether it lives."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def is_alive(owner: str) -> bool | None:
    """Whether a process of this machine still runs; None where it is another machine's."""
    host, pid, began = owner.rsplit("/", 2)
    if host != socket.gethostname():
        return None
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(began)) < 0.1)
    except psutil.Error:
        return False


class Journal:
    """The record of one run's steps.

    Args:
        ledger: where it stands.
        clock: the time, for what expires.
        run: id of the run.
        owner: name of the process that has the run in hand.
    """

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
        """Make the first claim of the run: recorded together with its decision."""
        return Claimed(run=self.run, owner=self.owner, key=key)

    def read(self) -> None:
        """Take in what is recorded: for a run that was begun before."""
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
        """Steps that are done, in the order in which they were."""
        return list(self._steps.values())

    def find(self, step: str) -> Stepped | None:
        """A step that is done."""
        return self._steps.get(step)

    async def record(self, done: Stepped) -> None:
        """Record that a step is done; durable when this returns."""
        self._steps[done.step] = done
        await self._ledger.append(done)

    async def begin(self, step: str, worker: WorkerId) -> bool:
        """Whether a step that changes something may be made: True once, and never again."""
        if step in self._begun:
            return False
        self._begun.add(step)
        return await self._ledger.append(Begun(run=self.run, step=step, worker=worker)) == 1

    async def propose(self, proposed: Proposed) -> Proposed:
        """Ask a human; a proposal that stands already is left as it is, with its time."""
        place = (proposed.step, proposed.digest)
        if place not in self._proposed:
            await self._ledger.append(proposed)
            self._proposed[place] = proposed
        return self._proposed[place]

    def find_resolution(self, step: str, digest: str) -> Resolved | None:
        """What a human said."""
        return self._resolved.get((step, digest))

    async def resolve(self, resolved: Resolved) -> Resolved:
        """Record an answer; where one was recorded before, that one counts."""
        place = (resolved.step, resolved.digest)
        if await self._ledger.append(resolved) == 0:
            await asyncio.to_thread(self.read)
        return self._resolved.setdefault(place, resolved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A run of several steps that has no end yet."""

    claim: Claimed
    at: float
    """Unix time of the latest of its entries."""
    proposal: Proposed | None
    """What it waits for, where that is a human."""
    is_owned: bool
    """Whether a living process has it in hand."""


class Journals:
    """All runs of several steps.

    Args:
        ledger: where they stand.
        clock: the time.
        owner: the name of this process.
        lease_s: how long another machine's run may record nothing before it counts as stranded, in seconds.
    """

    def __init__(self, ledger: Ledger, clock: Clock, *, owner: str | None = None, lease_s: float = LEASE_S) -> None:
        self.owner = owner or name_owner()
        self._ledger = ledger
        self._clock = clock
        self._lease_s = lease_s

    def open(self, run: str) -> Journal:
        """The journal of a run that begins."""
        return Journal(self._ledger, self._clock, run, self.owner)

    async def take_over(self, found: Unfinished) -> Journal | None:
        """Claim a run that nobody has in hand; None where another process was faster."""
        claim = Claimed(run=found.claim.run, owner=self.owner, nth=found.claim.nth + 1, key=found.claim.key)
        if await self._ledger.append(claim) == 0:
            return None
        journal = self.open(claim.run)
        await asyncio.to_thread(journal.read)
        return journal

    def find(self, run: str) -> Unfinished | None:
        """One run, if it has no end yet."""
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
