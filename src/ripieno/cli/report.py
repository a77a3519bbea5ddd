"""`ripieno report`: what the record says should change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import print_found, say
from ripieno.cli.running import run_app
from ripieno.errors import NotFound

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.evaluate.questions import TrafficReport


@click.command(epilog="\b\nExample:\n  ripieno report --last 20000")
@click.option("--last", type=click.IntRange(1), default=100_000, show_default=True, help="Latest decisions to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def report(config: Path | None, *, last: int, as_json: bool) -> None:
    """Show what the recorded decisions say should change in the routing, and where evidence is missing.

    What takes the most, who is overqualified, which fallback recovers, which tool breaks runs, what should move here.
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
