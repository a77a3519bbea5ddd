"""Ledger: the append-only record. A receipt means durable; every entry is chained to all before it."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from sqlalchemy import event, func, select

from ripieno.domain import Clock, Entry, SystemClock
from ripieno.errors import LedgerCorrupt, LedgerError
from ripieno.ledger.batch import Waiting
from ripieno.ledger.campaigns import Campaigns
from ripieno.ledger.codec import GENESIS, EntryRow, chain_digest, decode_entry, encode_entry
from ripieno.ledger.database import PATIENT_S, hide_password, open_engine
from ripieno.ledger.decisions import Decisions
from ripieno.ledger.documents import Documents
from ripieno.ledger.found import Stored, Verification
from ripieno.ledger.keys import KeyStore
from ripieno.ledger.outbox import Outbox
from ripieno.ledger.outcomes import Outcomes
from ripieno.ledger.reading import Reader, decode_task, store
from ripieno.ledger.runs import RunRecords
from ripieno.ledger.schema import entries, tasks
from ripieno.ledger.writer import Writer

HASTE_S = 1.2
"""Patience while a caller waits. With the requests queued behind a commit, a refusal takes under two seconds."""
_PROBE_S = 0.5
_WITH_TASK = select(entries, tasks.c.body.label("task_body")).outerjoin(tasks, tasks.c.digest == entries.c.task)


class Ledger:
    """The record of one installation, in one database.

    Appends go through one writer thread that commits all waiting rows together. Reads use their own connections.
    """

    def __init__(
        self, url: str, *, clock: Clock | None = None, outbox: Outbox | None = None, patience_s: float = PATIENT_S
    ) -> None:
        self.url = hide_password(url)
        self._engine = open_engine(url, patience_s=patience_s)
        self._is_closed = False
        chosen = clock or SystemClock()
        self._writer = Writer(self._engine, url=self.url, clock=chosen, outbox=outbox, patience_s=patience_s)
        self.aside = self._writer.aside
        """Entries that the database refused."""
        self.damage = damage = self._writer.damage
        event.listen(self._engine, "handle_error", lambda fault: damage.note_read(str(fault.original_exception)))
        self.loops = (self._writer.loop, self._writer.watch)
        """State of the writer's threads."""
        self.keys = KeyStore(self._engine, url=self.url, clock=chosen)
        self.documents = Documents(self._engine, url=self.url, clock=chosen)
        self._reader = reader = Reader(self._engine, self._writer, url=self.url)
        self.decisions = Decisions(reader)
        self.runs = RunRecords(reader)
        self.outcomes = Outcomes(reader)
        self.campaigns = Campaigns(reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write the waiting entries, then release the database."""
        if self._is_closed:
            return
        self._is_closed = True
        self._writer.close()
        self._engine.dispose()

    async def append(self, *new: Entry) -> int:
        """Record entries, all or none, and wait until they are durable.

        Returns:
            The number of new entries. An entry whose id is already recorded is skipped.

        Raises:
            LedgerFull: no space is left, and nothing was recorded.
            LedgerError: the database refuses the entries.
        """
        return await self.submit(*new)

    def submit(self, *new: Entry) -> "asyncio.Future[int]":
        """Start to record entries. The future is done when they are durable; see `append`."""
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._submit(new, waiting)
        return waiting

    def note(self, *new: Entry) -> None:
        """Record entries with the next commit, without waiting. A failure is logged."""
        self._submit(new, None)

    def append_now(self, new: Iterable[Entry]) -> int:
        """Record entries, all or none, from synchronous code; see `append`."""
        waiting: Future[int] = Future()
        self._submit(new, waiting)
        return waiting.result()

    def read(self, *, kinds: Sequence[str] = (), dataset: str | None = None, after: int = 0) -> Iterator[Stored]:
        """Yield the entries after the place `after`, in the order of recording."""
        query = _WITH_TASK
        if after:
            query = query.where(entries.c.seq > after)
        if kinds:
            query = query.where(entries.c.kind.in_(kinds))
        if dataset is not None:
            query = query.where(entries.c.dataset == dataset)
        for row in self._reader.stream(query.order_by(entries.c.seq)):
            yield store(row, task_body=row.task_body)

    def count(self, kind: str) -> int:
        """Count the entries of one kind."""
        return int(self._reader.scalar(select(func.count()).where(entries.c.kind == kind)))

    def digest_at(self, place: int) -> str | None:
        """Return the digest of the entry at a place and all before it; None if there is no such entry."""
        found: str | None = self._reader.scalar(select(entries.c.digest).where(entries.c.seq == place))
        return found

    async def probe(self) -> bool:
        """Return whether the ledger accepts entries now; False after half a second without an answer."""
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._writer.submit((), waiting, is_probe=True)
        done, _ = await asyncio.wait((waiting,), timeout=_PROBE_S)
        if not done:
            waiting.cancel()
            return self.aside.can_spool
        return waiting.exception() is None

    def head(self) -> int:
        """Return the place of the latest entry; 0 in an empty ledger."""
        return int(self._reader.scalar(select(func.max(entries.c.seq))) or 0)

    def verify(self) -> Verification:
        """Read everything, recompute the chain, and decode every body.

        Raises:
            LedgerCorrupt: an entry was changed, removed or damaged; `entry` is the first.
        """
        previous, count = GENESIS, 0
        for row in self._reader.stream(_WITH_TASK.order_by(entries.c.seq)):
            shell = EntryRow(id=row.id, kind=row.kind, body=row.body, task=row.task)
            if chain_digest(previous, shell, at=row.at) != row.digest:
                raise LedgerCorrupt(
                    f"the chain breaks at entry {row.id!r} (seq {row.seq}): this entry, or one before it, was changed",
                    entry=row.id,
                    hint="restore the ledger from a copy; the entries before this one are intact",
                )
            decode_entry(row.kind, row.body, entry=row.id, task_body=row.task_body)
            _check_task(row.id, row.task, row.task_body)
            previous, count = row.digest, count + 1
        total: int = self._reader.scalar(select(func.count()).select_from(tasks))
        return Verification(entries=count, tasks=total, head=previous)

    def _submit(self, new: Iterable[Entry], waiting: Waiting | None) -> None:
        if self._is_closed:
            raise LedgerError(f"ledger {self.url!r} is closed")
        self._writer.submit([encode_entry(entry) for entry in new], waiting)


def _check_task(entry: str, digest: str | None, body: str | None) -> None:
    """Compare a task with its digest. A missing task of a decision was refused before."""
    if digest is not None and body is not None and decode_task(digest, body).digest != digest:
        raise LedgerCorrupt(f"the task of entry {entry!r} was changed", entry=entry)
