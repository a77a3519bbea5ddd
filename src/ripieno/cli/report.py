"""`ripieno report`: recommended changes to the routing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.options import prints_json
from ripieno.cli.output import print_found, say
from ripieno.cli.running import run_app
from ripieno.errors import NotFound

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.evaluate.questions import TrafficReport


@click.command(epilog="\b\nExample:\n  ripieno report --last 20000")
@click.option("--last", type=click.IntRange(1), default=100_000, show_default=True, help="Number of latest decisions.")
@prints_json
def report(config: Path | None, *, last: int, as_json: bool) -> None:
    """Recommend changes to the routing from recorded decisions, and show where evidence is missing.

    Tasks with the most tokens, overqualified workers, useful fallbacks, tools that break runs, tasks to move local.
    """
    from ripieno.app.sources import list_campaigns, list_local
    from ripieno.evaluate.tables import summarise_traffic, tabulate_traffic
    from ripieno.learn.logs import make_report

    async def work(app: Installation) -> TrafficReport:
        found, _ = make_report(app.ledger, last=last, local=list_local(app.runtime.pool), datasets=list_campaigns(app))
        if not found.decisions:
            raise NotFound("no task of traffic is recorded yet", hint="make some: `ripieno ask TEXT`, or serve traffic")
        return found

    found = run_app(config, work, decides=False)
    print_found(found, *tabulate_traffic(found), as_json=as_json)
    if not as_json:
        say(summarise_traffic(found))
