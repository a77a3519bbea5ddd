"""Decisions: recorded decisions, their runs, and the steps of policies."""

from collections.abc import Sequence

from sqlalchemy import select, text

from ripieno.domain import Configured, Decided, Executed, Judged, RoutingSetup, Run
from ripieno.errors import NotFound
from ripieno.ledger.found import Stored
from ripieno.ledger.reading import DECIDED, MOST_NAMES, Reader, read_as, store
from ripieno.ledger.schema import OF_POLICIES, entries, tasks

_WITH_TASK = select(entries, tasks.c.body.label("task_body")).join(tasks, tasks.c.digest == entries.c.task)
_OF_POLICIES = text(f"entries.{OF_POLICIES}")
"""A part of the statement: with a parameter, the database would not use the index."""


class Decisions:
    """Reads decisions, and the promotion steps of policies."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def find(self, decision: str, *, is_whole: bool = False) -> Decided:
        """Find a decision by its id or, unless `is_whole` is True, by an unambiguous prefix of its id.

        Raises:
            NotFound: there is no such decision, or more than one.
        """
        query = _WITH_TASK.where(entries.c.kind == "decided").limit(2)
        rows = self._reader.rows(query.where(entries.c.decision == decision))
        if not rows and not is_whole:  # the search for a prefix reads every decision
            rows = self._reader.rows(query.where(entries.c.decision.startswith(decision, autoescape=True)))
        if len(rows) != 1:
            problem = "no decision" if not rows else "more than one decision"
            raise NotFound(f"{problem} is recorded under {decision!r}", hint="the id is in X-Ripieno-Decision")
        return read_as(Decided, rows[0], task_body=rows[0].task_body)

    def find_setup(self, digest: str) -> RoutingSetup | None:
        """Find a setup by its digest; None if it is not recorded."""
        rows = self._reader.rows(select(entries).where(entries.c.id == f"configured:{digest}"))
        return read_as(Configured, rows[0]).setup if rows else None

    def last(self) -> str | None:
        """Return the id of the latest decision, if there is one."""
        query = select(entries.c.decision).where(entries.c.kind == DECIDED).order_by(entries.c.seq.desc()).limit(1)
        found: str | None = self._reader.scalar(query)
        return found

    def latest(self, most: int, *, before: int | None = None) -> list[Stored]:
        """Return the latest decisions, newest first; only those before the place `before`, if given."""
        query = _WITH_TASK.where(entries.c.kind == DECIDED)
        if before is not None:
            query = query.where(entries.c.seq < before)
        rows = self._reader.rows(query.order_by(entries.c.seq.desc()).limit(most))
        return [store(row, task_body=row.task_body) for row in rows]

    def find_start(self, last: int) -> int:
        """Return the place before the latest `last` decisions; 0 if there are fewer."""
        query = select(entries.c.seq).where(entries.c.kind == DECIDED).order_by(entries.c.seq.desc())
        found: int | None = self._reader.scalar(query.offset(last - 1).limit(1))
        return found - 1 if found is not None else 0

    def results_of(self, decisions: Sequence[str]) -> dict[str, tuple[Run, list[Judged]]]:
        """Return the latest run of each decision that has one, with its verdicts, oldest first."""
        runs: dict[str, Run] = {}
        found: dict[str, list[Judged]] = {}
        for start in range(0, len(decisions), MOST_NAMES):
            part = decisions[start : start + MOST_NAMES]
            in_order = select(entries).order_by(entries.c.seq)
            rows = self._reader.rows(in_order.where(entries.c.kind == "executed", entries.c.decision.in_(part)))
            mine = {row.decision: read_as(Executed, row).run for row in rows}
            runs |= mine
            named = [run.id for run in mine.values()]
            for row in self._reader.rows(in_order.where(entries.c.kind == "judged", entries.c.run.in_(named))):
                entry = read_as(Judged, row)
                if not entry.verdict.is_void:
                    found.setdefault(entry.run, []).append(entry)
        return {decision: (run, found.get(run.id, [])) for decision, run in runs.items()}

    def policy_steps(self, most: int) -> list[Stored]:
        """Return the latest trainings, promotions and stages of promotions, newest first."""
        rows = self._reader.rows(select(entries).where(_OF_POLICIES).order_by(entries.c.seq.desc()).limit(most))
        return [store(row) for row in rows]
