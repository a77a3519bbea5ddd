"""Decisions: what was decided, by which policy, and what came of it."""

from collections.abc import Sequence

from sqlalchemy import select, text

from ripieno.domain import Configured, Decided, Executed, Judged, RoutingSetup, Run
from ripieno.errors import NotFound
from ripieno.ledger.codec import decode_entry
from ripieno.ledger.found import Stored
from ripieno.ledger.reading import DECIDED, MOST_NAMES, Reader, store
from ripieno.ledger.schema import OF_POLICIES, entries, tasks

_OF_POLICIES = text(f"entries.{OF_POLICIES}")
"""As part of the statement itself: a parameter would not be seen to fit the index."""


class Decisions:
    """Reads decisions, and the steps of policies on their way into traffic.

    Args:
        reader: opens connections.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def find(self, decision: str, *, is_whole: bool = False) -> Decided:
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
        with self._reader.connect() as connection:
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
        with self._reader.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        entry = decode_entry(row.kind, row.body, entry=row.id)
        assert isinstance(entry, Configured)
        return entry.setup

    def last(self) -> str | None:
        """Id of the latest decision, if any was made."""
        query = select(entries.c.decision).where(entries.c.kind == DECIDED).order_by(entries.c.seq.desc()).limit(1)
        with self._reader.connect() as connection:
            return connection.execute(query).scalar()

    def latest(self, most: int, *, before: int | None = None) -> list[Stored]:
        """The latest decisions, newest first; those before the place `before`, if it is given."""
        query = (
            select(entries, tasks.c.body.label("task_body"))
            .join(tasks, tasks.c.digest == entries.c.task)
            .where(entries.c.kind == DECIDED)
        )
        if before is not None:
            query = query.where(entries.c.seq < before)
        with self._reader.connect() as connection:
            rows = connection.execute(query.order_by(entries.c.seq.desc()).limit(most)).all()
        return [store(row, task_body=row.task_body) for row in rows]

    def find_start(self, last: int) -> int:
        """The place before the latest `last` decisions; 0 where there are not so many."""
        query = select(entries.c.seq).where(entries.c.kind == DECIDED).order_by(entries.c.seq.desc())
        with self._reader.connect() as connection:
            found = connection.execute(query.offset(last - 1).limit(1)).scalar()
        return int(found) - 1 if found is not None else 0

    def results_of(self, decisions: Sequence[str]) -> dict[str, tuple[Run, list[Judged]]]:
        """The latest run of each decision that has one, with the findings about it, oldest first."""
        runs: dict[str, Run] = {}
        found: dict[str, list[Judged]] = {}
        with self._reader.connect() as connection:
            for start in range(0, len(decisions), MOST_NAMES):
                part = decisions[start : start + MOST_NAMES]
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

    def policy_steps(self, most: int) -> list[Stored]:
        """The latest trainings, promotions and stages of promotions, newest first."""
        query = select(entries).where(_OF_POLICIES).order_by(entries.c.seq.desc()).limit(most)
        with self._reader.connect() as connection:
            rows = connection.execute(query).all()
        return [store(row) for row in rows]
