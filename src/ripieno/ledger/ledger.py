"""Ledger: the append-only record. A receipt means durable; every entry is chained to all before it."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import msgspec
from sqlalchemy import ColumnElement, Connection, exists, func, insert, literal_column, select, text
from sqlalchemy import Row as SqlRow

from ripieno.domain import (
    Clock,
    Configured,
    Decided,
    Entry,
    Executed,
    Judged,
    Outcome,
    RoutingSetup,
    Run,
    SystemClock,
    Task,
)
from ripieno.errors import LedgerCorrupt, LedgerError, NotFound
from ripieno.ledger.batch import Waiting
from ripieno.ledger.codec import GENESIS, Row, chain_digest, decode_entry, encode_entry
from ripieno.ledger.database import PATIENT_S, hide_password, open_engine, translated_faults
from ripieno.ledger.found import Late, Measured, Stored, Verification
from ripieno.ledger.keys import KeyStore
from ripieno.ledger.outbox import Outbox
from ripieno.ledger.schema import OF_POLICIES, catalog, entries, tasks
from ripieno.ledger.writer import Writer

PROBE_PREFIX = "probe:"
"""Beginning of the data-set names that probes of new workers are recorded under."""
HASTE_S = 1.2
"""Patience where a caller waits: with what is queued behind a commit, a refusal takes less than two seconds."""
_PROBE_S = 0.5

_CLAIMED: ColumnElement[str] = literal_column("'claimed'")
_JUDGED: ColumnElement[str] = literal_column("'judged'")
_DECIDED: ColumnElement[str] = literal_column("'decided'")
_VOID = "judged:%:judge_failed:%"
"""Ids of findings that earlier versions recorded where a judge had failed; see `Verdict.is_void`."""
_OF_POLICIES = text(f"entries.{OF_POLICIES}")
"""Said in the statement itself: a parameter would not be seen to fit the index of the kind."""
_MOST_NAMES = 500
"""Ids of one query."""


class Ledger:
    """The record of one installation, in one database.

    Appends go through one writer thread that commits all waiting rows together; reads use connections of their own.
    """

    def __init__(
        self, url: str, *, clock: Clock | None = None, outbox: Outbox | None = None, patience_s: float = PATIENT_S
    ) -> None:
        self.url = hide_password(url)
        self._engine = open_engine(url, patience_s=patience_s)
        self._reader = self._engine.execution_options(reads_only=True)
        self._is_closed = False
        chosen = clock or SystemClock()
        self.keys = KeyStore(self._engine, url=self.url, clock=chosen)
        self._writer = Writer(self._engine, url=self.url, clock=chosen, outbox=outbox, patience_s=patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, then release the database."""
        if self._is_closed:
            return
        self._is_closed = True
        self._writer.close()
        self._engine.dispose()

    async def append(self, *new: Entry) -> int:
        """Record entries, all or none, and wait until they are durable.

        Returns:
            How many were new; an entry whose id is already recorded is left as it is.

        Raises:
            LedgerFull: no space; nothing of this call was recorded.
            LedgerError: the database refuses.
        """
        return await self.submit(*new)

    def submit(self, *new: Entry) -> "asyncio.Future[int]":
        """Begin to record entries; the future is done when they are durable. See `append`."""
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._submit(new, waiting)
        return waiting

    def note(self, *new: Entry) -> None:
        """Record entries soon, without waiting: they go with the next commit. A failure is logged."""
        self._submit(new, None)

    def append_now(self, new: Iterable[Entry]) -> int:
        """Record entries, all or none, from synchronous code; see `append`."""
        waiting: Future[int] = Future()
        self._submit(new, waiting)
        return waiting.result()

    def read(self, *, kinds: Sequence[str] = (), dataset: str | None = None, after: int = 0) -> Iterator[Stored]:
        """Read entries in the order in which they were recorded, those behind the place `after`."""
        query = select(entries, tasks.c.body.label("task_body")).outerjoin(tasks, tasks.c.digest == entries.c.task)
        if after:
            query = query.where(entries.c.seq > after)
        if kinds:
            query = query.where(entries.c.kind.in_(kinds))
        if dataset is not None:
            query = query.where(entries.c.dataset == dataset)
        with self._reading() as connection:
            for row in connection.execute(query.order_by(entries.c.seq)).yield_per(5000):
                yield _store(row, task_body=row.task_body)

    def run_ids(self, dataset: str) -> set[str]:
        """Ids of all runs of one campaign or data set."""
        query = select(entries.c.run).where(entries.c.kind == "executed", entries.c.dataset == dataset)
        with self._reading() as connection:
            return {row.run for row in connection.execute(query)}

    def find_source(self, dataset: str) -> str:
        """Where the graded tasks of a campaign can be read again; empty where nothing says so."""
        query = select(entries).where(entries.c.kind == "executed", entries.c.dataset == dataset).limit(1)
        with self._reading() as connection:
            for row in connection.execute(query):
                entry = decode_entry("executed", row.body, entry=row.id)
                assert isinstance(entry, Executed)
                return entry.run.placement.source if entry.run.placement is not None else ""
        return ""

    def datasets(self) -> dict[str, int]:
        """Campaigns and data sets, with their number of runs."""
        query = (
            select(entries.c.dataset, func.count().label("runs"))
            .where(entries.c.kind == "executed", entries.c.dataset.is_not(None))
            .group_by(entries.c.dataset)
        )
        with self._reading() as connection:
            return {row.dataset: int(row.runs) for row in connection.execute(query)}

    def count(self, kind: str) -> int:
        """Number of entries of one kind."""
        with self._reading() as connection:
            found = connection.execute(select(func.count()).where(entries.c.kind == kind)).scalar()
            return int(found or 0)

    def find_decided(self, decision: str, *, is_whole: bool = False) -> Decided:
        """Find a decision by its id, or by an unambiguous beginning of it.

        Args:
            decision: its id, or the beginning of it.
            is_whole: whether only a whole id is taken.

        Raises:
            NotFound: there is none, or more than one.
        """
        query = (
            select(entries, tasks.c.body.label("task_body"))
            .join(tasks, tasks.c.digest == entries.c.task)
            .where(entries.c.kind == "decided")
            .limit(2)
        )
        with self._reading() as connection:
            rows = connection.execute(query.where(entries.c.decision == decision)).all()
            if not rows and not is_whole:  # a beginning of an id looks at every decision
                beginning = entries.c.decision.startswith(decision, autoescape=True)
                rows = connection.execute(query.where(beginning)).all()
        if len(rows) != 1:
            problem = "no decision" if not rows else "more than one decision"
            raise NotFound(f"{problem} is recorded under {decision!r}", hint="the id stands in X-Ripieno-Decision")
        entry = decode_entry("decided", rows[0].body, entry=rows[0].id, task_body=rows[0].task_body)
        assert isinstance(entry, Decided)
        return entry

    def find_setup(self, digest: str) -> RoutingSetup | None:
        """Find the setup that decisions refer to by its digest; None if it is not recorded."""
        query = select(entries).where(entries.c.id == f"configured:{digest}")
        with self._reading() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        entry = decode_entry(row.kind, row.body, entry=row.id)
        assert isinstance(entry, Configured)
        return entry.setup

    def last_decision(self) -> str | None:
        """Id of the latest decision, if any was made."""
        query = select(entries.c.decision).where(entries.c.kind == _DECIDED).order_by(entries.c.seq.desc()).limit(1)
        with self._reading() as connection:
            return connection.execute(query).scalar()

    def latest_decisions(self, most: int, *, before: int | None = None) -> list[Stored]:
        """The latest decisions, newest first; those before the place `before`, if it is given."""
        query = (
            select(entries, tasks.c.body.label("task_body"))
            .join(tasks, tasks.c.digest == entries.c.task)
            .where(entries.c.kind == _DECIDED)
        )
        if before is not None:
            query = query.where(entries.c.seq < before)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(entries.c.seq.desc()).limit(most)).all()
        return [_store(row, task_body=row.task_body) for row in rows]

    def policy_steps(self, most: int) -> list[Stored]:
        """The latest trainings, promotions and stages of promotions, newest first."""
        query = select(entries).where(_OF_POLICIES).order_by(entries.c.seq.desc()).limit(most)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [_store(row) for row in rows]

    def digest_at(self, place: int) -> str | None:
        """Digest of the entry at a place: it stands for all entries up to there; None where there is none."""
        with self._reading() as connection:
            return connection.execute(select(entries.c.digest).where(entries.c.seq == place)).scalar()

    def find_start(self, last: int) -> int:
        """The place before the latest `last` decisions; 0 where there are not so many."""
        query = select(entries.c.seq).where(entries.c.kind == _DECIDED).order_by(entries.c.seq.desc())
        with self._reading() as connection:
            found = connection.execute(query.offset(last - 1).limit(1)).scalar()
        return int(found) - 1 if found is not None else 0

    def came_of(self, decisions: Sequence[str]) -> dict[str, tuple[Run, list[Judged]]]:
        """The latest run of each decision that has one, with the findings about it, oldest first."""
        runs: dict[str, Run] = {}
        found: dict[str, list[Judged]] = {}
        with self._reading() as connection:
            for start in range(0, len(decisions), _MOST_NAMES):
                part = decisions[start : start + _MOST_NAMES]
                mine: dict[str, Run] = {}
                query = select(entries).where(entries.c.kind == "executed", entries.c.decision.in_(part))
                for row in connection.execute(query.order_by(entries.c.seq)):
                    entry = decode_entry("executed", row.body, entry=row.id)
                    assert isinstance(entry, Executed)
                    mine[row.decision] = entry.run
                runs |= mine
                named = [run.id for run in mine.values()]
                query = select(entries).where(entries.c.kind == "judged", entries.c.run.in_(named))
                for row in connection.execute(query.order_by(entries.c.seq)):
                    entry = decode_entry("judged", row.body, entry=row.id)
                    assert isinstance(entry, Judged)
                    if not entry.verdict.is_void:
                        found.setdefault(entry.run, []).append(entry)
        return {decision: (run, found.get(run.id, [])) for decision, run in runs.items()}

    def runs_of(self, decision: str) -> list[Run]:
        """Runs that a decision led to."""
        query = select(entries).where(entries.c.kind == "executed", entries.c.decision == decision)
        with self._reading() as connection:
            found = [decode_entry("executed", row.body, entry=row.id) for row in connection.execute(query)]
        return [entry.run for entry in found if isinstance(entry, Executed)]

    def verdicts_of(self, run: str) -> list[Judged]:
        """Findings about one run, oldest first."""
        query = select(entries).where(entries.c.kind == "judged", entries.c.run == run).order_by(entries.c.seq)
        with self._reading() as connection:
            found = [decode_entry("judged", row.body, entry=row.id) for row in connection.execute(query)]
        return [entry for entry in found if isinstance(entry, Judged) and not entry.verdict.is_void]

    def entries_of(self, run: str) -> Iterator[Stored]:
        """All entries about one run, in the order in which they were recorded."""
        query = select(entries).where(entries.c.run == run).order_by(entries.c.seq)
        with self._reading() as connection:
            for row in connection.execute(query):
                yield _store(row)

    def unfinished_runs(self, *, after: int = 0) -> list[tuple[str, int]]:
        """Runs that were claimed and have no end yet, oldest first, each with the place of its first claim.

        Args:
            after: place from which on claims are looked at, exclusive.
        """
        end = entries.alias()
        has_ended = exists().where(end.c.run == entries.c.run, end.c.kind == "executed")
        query = select(entries.c.run, entries.c.seq).where(
            entries.c.kind == _CLAIMED, entries.c.seq > after, ~has_ended
        )
        first: dict[str, int] = {}
        with self._reading() as connection:
            for row in connection.execute(query.order_by(entries.c.seq)):
                first.setdefault(row.run, int(row.seq))
        return list(first.items())

    @property
    def is_at_fault(self) -> bool:
        """Whether the latest commit was refused."""
        return self._writer.is_at_fault

    async def probe(self) -> bool:
        """Find out now whether entries are taken; half a second without an answer is a no."""
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._writer.submit((), waiting, is_probe=True)
        done, _ = await asyncio.wait((waiting,), timeout=_PROBE_S)
        if not done:
            waiting.cancel()
            return self._writer.can_spool
        return waiting.exception() is None

    @property
    def waiting(self) -> int:
        """Entries that wait in the outbox for a database that does not take them."""
        return self._writer.waiting

    def head(self) -> int:
        """Place of the latest entry; 0 in an empty ledger."""
        with self._reading() as connection:
            return int(connection.execute(select(func.max(entries.c.seq))).scalar() or 0)

    def late(self, *, after: int, until: int | None = None) -> Iterator[Late]:
        """First findings about runs of traffic and of probes, in order; later ones about the same run do not count.

        Runs of several steps are left out, but for those of workflows that are estimated like workers: of whom the
        outcome of any other speaks is not plain.

        Args:
            after: place from which on, exclusive.
            until: place up to which, inclusive; the head if not given.
        """
        run = entries.alias()
        earlier = entries.alias()
        is_first = ~exists().where(
            earlier.c.kind == "judged",
            earlier.c.run == entries.c.run,
            earlier.c.seq < entries.c.seq,
            earlier.c.id.not_like(_VOID),
        )
        query = (
            select(
                entries.c.seq,
                entries.c.id,
                entries.c.body,
                run.c.body.label("run_body"),
                tasks.c.body.label("task_body"),
            )
            .join(run, (run.c.run == entries.c.run) & (run.c.kind == "executed"))
            .join(tasks, tasks.c.digest == run.c.task)
            .where(entries.c.kind == _JUDGED, entries.c.seq > after, is_first, entries.c.id.not_like(_VOID))
            .where(run.c.dataset.is_(None) | run.c.dataset.startswith(PROBE_PREFIX))
            .order_by(entries.c.seq)
        )
        if until is not None:
            query = query.where(entries.c.seq <= until)
        with self._reading() as connection:
            for row in connection.execute(query).yield_per(1000):
                judged = decode_entry("judged", row.body, entry=row.id)
                executed = decode_entry("executed", row.run_body, entry=row.id, task_body=row.task_body)
                assert isinstance(judged, Judged)
                assert isinstance(executed, Executed)
                assert executed.task is not None
                if not executed.run.is_solo and executed.run.mode is None:
                    continue
                yield Late(seq=row.seq, quality=judged.verdict.quality, run=executed.run, task=executed.task)

    def measured(self, *, dataset: str | None = None) -> Iterator[Measured]:
        """All judged runs of single workers as outcomes; the last finding about a run counts."""
        qualities = self._read_qualities(dataset)
        executed = (stored.entry for stored in self.read(kinds=("executed",), dataset=dataset))
        for run in (entry.run for entry in executed if isinstance(entry, Executed)):
            if run.id in qualities and run.is_solo:
                yield _measure(run, qualities[run.id])

    def unjudged(self, dataset: str) -> list[Run]:
        """Runs of a campaign that have an answer and no verdict: what judges it had failed, or was stopped."""
        qualities = self._read_qualities(dataset)
        executed = (stored.entry for stored in self.read(kinds=("executed",), dataset=dataset))
        runs = (entry.run for entry in executed if isinstance(entry, Executed))
        return [run for run in runs if run.answer is not None and run.id not in qualities]

    def _read_qualities(self, dataset: str | None) -> dict[str, float]:
        """The last finding about each run, or about each of one data set."""
        query = select(entries.c.id, entries.c.body).where(entries.c.kind == _JUDGED)
        if dataset is not None:
            run = entries.alias()
            mine = (run.c.run == entries.c.run) & (run.c.kind == "executed") & (run.c.dataset == dataset)
            query = query.join(run, mine)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(entries.c.seq)).yield_per(5000)
            found = [decode_entry("judged", row.body, entry=row.id) for row in rows]
        judged = (entry for entry in found if isinstance(entry, Judged))
        return {entry.run: entry.verdict.quality for entry in judged if not entry.verdict.is_void}

    def tasks(self, digests: Iterable[str]) -> dict[str, Task]:
        """Tasks by digest."""
        wanted = set(digests)
        with self._reading() as connection:
            rows = connection.execute(select(tasks)).yield_per(5000)
            return {row.digest: _decode_task(row.digest, row.body) for row in rows if row.digest in wanted}

    def save_catalog(self, dataset: str, bodies: dict[str, str]) -> None:
        """Keep the cards of an imported set's workers, as JSON; known ones are left as they are."""
        with translated_faults(self.url), self._engine.begin() as connection:
            known = set(connection.execute(select(catalog.c.worker).where(catalog.c.dataset == dataset)).scalars())
            rows = [{"dataset": dataset, "worker": w, "body": body} for w, body in bodies.items() if w not in known]
            if rows:
                connection.execute(insert(catalog), rows)

    def load_catalog(self, dataset: str) -> dict[str, str]:
        """Cards of an imported set's workers, as JSON."""
        query = select(catalog.c.worker, catalog.c.body).where(catalog.c.dataset == dataset)
        with self._reading() as connection:
            return {row.worker: row.body for row in connection.execute(query)}

    def verify(self) -> Verification:
        """Read everything, recompute the chain, decode every body.

        Raises:
            LedgerCorrupt: an entry was changed, removed or damaged; `entry` names the first.
        """
        previous, count = GENESIS, 0
        query = select(entries, tasks.c.body.label("task_body")).outerjoin(tasks, tasks.c.digest == entries.c.task)
        with self._reading() as connection:
            for row in connection.execute(query.order_by(entries.c.seq)).yield_per(5000):
                shell = Row(id=row.id, kind=row.kind, body=row.body, task=row.task)
                if chain_digest(previous, shell, at=row.at) != row.digest:
                    raise LedgerCorrupt(
                        f"the chain breaks at entry {row.id!r} (seq {row.seq}): it, or one before it, was changed",
                        entry=row.id,
                        hint="restore the ledger from a copy; entries before this one hold",
                    )
                decode_entry(row.kind, row.body, entry=row.id, task_body=row.task_body)
                _check_task(row.id, row.task, row.task_body)
                previous, count = row.digest, count + 1
            total = connection.execute(select(func.count()).select_from(tasks)).scalar()
        return Verification(entries=count, tasks=int(total or 0), head=previous)

    def _submit(self, new: Iterable[Entry], waiting: Waiting | None) -> None:
        if self._is_closed:
            raise LedgerError(f"ledger {self.url!r} is closed")
        self._writer.submit([encode_entry(entry) for entry in new], waiting)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A connection that sees all that was submitted here before."""
        self._writer.wait()
        self._writer.require_reachable()
        with translated_faults(self.url), self._reader.connect() as connection:
            yield connection


def _store(row: SqlRow[Any], *, task_body: str | None = None) -> Stored:
    entry = decode_entry(row.kind, row.body, entry=row.id, task_body=task_body)
    return Stored(seq=row.seq, at=row.at, entry=entry)


def _measure(run: Run, quality: float) -> Measured:
    last = run.calls[-1]
    return Measured(
        outcome=Outcome(
            task=run.task,
            worker=run.worker,
            quality=quality,
            cost_usd=run.cost_usd,
            latency_s=run.latency_s,
            input_tokens=last.usage.input_tokens,
            output_tokens=last.usage.output_tokens,
        ),
        run=run.id,
        version=last.worker_version,
        placement=run.placement,
        decision=run.decision,
        failure=last.failure,
    )


def _decode_task(digest: str, body: str) -> Task:
    try:
        return msgspec.json.decode(body, type=Task)
    except msgspec.MsgspecError as error:
        raise LedgerCorrupt(f"task {digest!r} cannot be read: {error}", entry=digest) from error


def _check_task(entry: str, digest: str | None, body: str | None) -> None:
    """Hold a task against its digest; a decision whose task is gone was refused before."""
    if digest is not None and body is not None and _decode_task(digest, body).digest != digest:
        raise LedgerCorrupt(f"the task of entry {entry!r} was changed", entry=entry)
