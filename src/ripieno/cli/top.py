"""`ripieno top`: live decisions, and a profile of each worker."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import console, make_table
from ripieno.cli.running import run_app
from ripieno.domain import sum_costs
from ripieno.domain.report import Column, Kind, Report, format_money_sum, money, number, seconds, text

if TYPE_CHECKING:
    from rich.console import Group

    from ripieno.app import Installation
    from ripieno.ledger import Ledger

SHOWN = 15
WINDOW = 1000
"""Latest decisions that the profiles of the workers use."""
_DECISIONS = (
    Column(name="at", title="when", kind=Kind.MOMENT), text("kind"), text("worker"), number("calls"),
    money("cost_usd", "cost"), seconds("latency_s", "time"), text("state"), number("quality", spec=".2f"), text("why"),
)  # fmt: skip


@click.command(epilog="\b\nExample:\n  ripieno top")
@click.option(
    "--every", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between two updates."
)
@click.option("--once", is_flag=True, help="Print once, as without a terminal.")
@click.pass_obj
def top(config: Path | None, *, every: float, once: bool) -> None:
    """Show the latest decisions and a profile of each worker, until Ctrl-C."""

    async def work(app: "Installation") -> None:
        shown = await asyncio.to_thread(render, app.ledger)
        if once or not sys.stdout.isatty():
            console().print(shown)
            return
        from rich.live import Live

        with Live(shown, console=console(), screen=True) as live:
            while True:
                await asyncio.sleep(every)
                live.update(await asyncio.to_thread(render, app.ledger))

    run_app(config, work, decides=False)


def render(ledger: "Ledger") -> "Group":
    """Lay out a summary line, the latest decisions, and the profiles of the workers."""
    from rich.console import Group
    from rich.text import Text

    from ripieno.dashboard.live import read_rows
    from ripieno.evaluate.profiles import profile_workers
    from ripieno.evaluate.tables import tabulate_profiles
    from ripieno.learn.logs import observe

    rows, _ = read_rows(ledger, most=SHOWN)
    seen = observe(ledger, last=WINDOW)
    spent = format_money_sum(*sum_costs([call.cost_usd for row in seen for call in row.calls]))
    failed = sum(row.author is None for row in seen)
    head = f"{len(seen)} latest runs: {spent}, {failed} without an answer"
    decisions = make_table(Report(title="", columns=_DECISIONS, rows=rows), wraps=False)
    return Group(Text(head), decisions, Text(""), make_table(tabulate_profiles(profile_workers(seen)), wraps=False))
