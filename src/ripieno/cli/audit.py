"""`ripieno audit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import print_json, print_table
from ripieno.cli.running import run_app
from ripieno.errors import GateRefused

if TYPE_CHECKING:
    from ripieno.app import App
    from ripieno.evaluate.audit import Audit


@click.command(epilog="\b\nExample:\n  ripieno audit --last 5000")
@click.option("--last", type=click.IntRange(1), default=10_000, show_default=True, help="Latest decisions to look at.")
@click.option("--gate", is_flag=True, help="Exit 5 if anything is flagged.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def audit(config: Path | None, *, last: int, gate: bool, as_json: bool) -> None:
    """Look for bias and drift of the router itself: who gets more than it earns, where, and what has changed."""
    from ripieno.app.policies import audit_traffic

    async def work(app: App) -> tuple[Audit, list[str]]:
        return await audit_traffic(app, last=last)

    found, drifts = run_app(config, work)
    if as_json:
        print_json(asdict(found) | {"drifts": drifts})
    else:
        show(found, drifts)
    if gate and found.flags:
        first = found.flags[0]
        raise GateRefused(f"{len(found.flags)} flags; the first: {first.worker} on {first.slice}: {first.reason}")


def show(found: Audit, drifts: Sequence[str]) -> None:
    """Shares and flags as tables."""
    from ripieno.evaluate.audit import LEAST_CELL

    rows = [
        [
            cell.slice,
            cell.worker,
            f"{cell.share:.0%}",
            f"{cell.share_elsewhere:.0%}" if cell.share_elsewhere == cell.share_elsewhere else "-",
            str(cell.judged),
            *(f"{value:.2f}" if value is not None and cell.judged >= LEAST_CELL else "-"
              for value in (cell.expected, cell.met, cell.met_by_others)),
        ]
        for cell in found.cells
    ]  # fmt: skip
    columns = ("slice", "worker", "share", "elsewhere", "judged", "expected", "met", "met by others")
    print_table(f"{found.decisions} decisions, {found.judged} judged", columns, rows)
    for swap in found.swaps:
        whom = f", most to {swap.to}" if swap.to else ""
        click.echo(f"{swap.attribute}: {swap.moved:.0%} of {swap.tasks} choices move{whom}")
    for drift in drifts:
        click.echo(f"drift: {drift}")
    for flag in found.flags:
        click.echo(f"FLAG ({flag.look}): {flag.worker} on {flag.slice}: {flag.reason}")
    if not found.flags:
        few = "" if found.judged >= LEAST_CELL else f"; with {found.judged} of {LEAST_CELL} judged, not enough evidence"
        click.echo(f"nothing is flagged{few}")
