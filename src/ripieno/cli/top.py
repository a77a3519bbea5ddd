"""`ripieno top`: decisions as they happen, and how the workers do."""

import asyncio
import sys
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import console, money, money_sum, seconds
from ripieno.cli.running import run_app
from ripieno.domain import Decided, Decision, Executed, Judged, Run, sum_costs

if TYPE_CHECKING:
    from rich.console import Group

    from ripieno.app import App
    from ripieno.ledger import Ledger

SHOWN = 15
"""Decisions of the table."""
WINDOW = 1000
"""Latest runs that the workers' rows are made of."""
FIRST_LOOK = 5000
"""Latest entries that are read when it starts."""


@dataclass(slots=True)
class Seen:
    """What was read of the ledger so far."""

    place: int = 0
    decisions: deque[tuple[float, Decision]] = field(default_factory=lambda: deque(maxlen=SHOWN))
    runs: dict[str, Run] = field(default_factory=dict)
    """Of the decisions that are shown."""
    qualities: dict[str, float] = field(default_factory=dict)
    latest: deque[Run] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def read(self, ledger: "Ledger") -> None:
        """Take in what is new."""
        start = self.place or max(ledger.head() - FIRST_LOOK, 0)
        for stored in ledger.read(kinds=("decided", "executed", "judged"), after=start):
            self.place = stored.seq
            match stored.entry:
                case Decided(decision=decision):
                    self.decisions.append((stored.at, decision))
                case Executed(run=run) if run.decision is not None:
                    self.runs[run.decision] = run
                    self.latest.append(run)
                case Judged(run=name, verdict=verdict) if not verdict.is_void:
                    self.qualities[name] = verdict.quality
                case _:
                    pass
        kept = {decision.id for _, decision in self.decisions}
        self.runs = {name: run for name, run in self.runs.items() if name in kept}


@click.command(epilog="\b\nExample:\n  ripieno top")
@click.option("--every", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Print it once; so it is where there is no terminal.")
@click.pass_obj
def top(config: Path | None, *, every: float, once: bool) -> None:
    """Show the latest decisions as they happen, and how each worker does, until Ctrl-C."""

    async def work(app: "App") -> None:
        seen = Seen()
        await asyncio.to_thread(seen.read, app.ledger)
        if once or not sys.stdout.isatty():
            console().print(render(seen))
            return
        from rich.live import Live

        with Live(render(seen), console=console(), screen=True) as live:
            while True:
                await asyncio.sleep(every)
                await asyncio.to_thread(seen.read, app.ledger)
                live.update(render(seen))

    run_app(config, work, decides=False)


def render(seen: Seen) -> "Group":
    """Both tables, and a line above them."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    decisions = Table(box=None, header_style="bold", expand=True)
    for name in ("when", "kind", "worker", "calls", "cost", "time", "worth", "why"):
        decisions.add_column(name, no_wrap=True, overflow="ellipsis", ratio=3 if name == "why" else None)
    for at, decision in reversed(seen.decisions):
        decisions.add_row(*map(Text, _tell(at, decision, seen)))
    workers = Table(box=None, header_style="bold")
    for name in ("worker", "answers", "failed calls", "cost", "median time"):
        workers.add_column(name, no_wrap=True)
    for row in tell_workers(seen):
        workers.add_row(*map(Text, row))
    spent = money_sum(*sum_costs([call.cost_usd for run in seen.latest for call in run.calls]))
    failed = sum(run.answer is None for run in seen.latest)
    head = f"{len(seen.latest)} latest runs: {spent}, {failed} without an answer"
    return Group(Text(head), decisions, Text(""), workers)


def tell_workers(seen: Seen) -> list[list[str]]:
    """How each worker did in the latest runs, the busiest first."""
    answers: dict[str, int] = defaultdict(int)
    failures: dict[str, int] = defaultdict(int)
    costs: dict[str, list[float | None]] = defaultdict(list)
    times: dict[str, list[float]] = defaultdict(list)
    for run in seen.latest:
        for call in run.calls:
            costs[call.worker].append(call.cost_usd)
            failures[call.worker] += call.failure is not None
            answers[call.worker] += call.failure is None
            if call.failure is None and call.latency_s is not None:
                times[call.worker].append(call.latency_s)
    return [
        [
            name,
            str(answers[name]),
            str(failures[name]),
            money_sum(*sum_costs(costs[name])),
            seconds(median(times[name])) if times[name] else "-",
        ]
        for name in sorted(costs, key=lambda each: -answers[each])
    ]


def _tell(at: float, decision: Decision, seen: Seen) -> list[str]:
    run = seen.runs.get(decision.id)
    quality = seen.qualities.get(run.id) if run is not None else None
    when = datetime.fromtimestamp(at, tz=UTC).strftime("%H:%M:%S")
    return [
        when,
        decision.kind or "-",
        str(run.worker if run is not None and run.calls else decision.worker),
        "..." if run is None else str(len(run.calls)),
        "..." if run is None else money(run.cost_usd),
        "..." if run is None else seconds(run.latency_s),
        "-" if quality is None else f"{quality:.2f}",
        decision.reasons[0] if decision.reasons else "",
    ]
