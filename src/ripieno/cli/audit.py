"""`ripieno audit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import print_found
from ripieno.cli.running import run_app
from ripieno.errors import GateRefused

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.evaluate.audit import Audit


@click.command(epilog="\b\nExample:\n  ripieno audit --last 5000")
@click.option("--last", type=click.IntRange(1), default=10_000, show_default=True, help="Latest decisions to look at.")
@click.option("--gate", is_flag=True, help="Exit 5 if anything is flagged.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def audit(config: Path | None, *, last: int, gate: bool, as_json: bool) -> None:
    """Look for bias and drift of the router itself: who gets more than it earns, where, and what has changed."""
    from ripieno.app.policies import audit_traffic
    from ripieno.evaluate.audit import tabulate_audit

    async def work(app: Installation) -> tuple[Audit, list[str]]:
        return await audit_traffic(app, last=last)

    found, drifts = run_app(config, work)
    print_found(asdict(found) | {"drifts": drifts}, *tabulate_audit(found, drifts), as_json=as_json)
    if gate and found.flags:
        first = found.flags[0]
        raise GateRefused(f"{len(found.flags)} flags; the first: {first.worker} on {first.slice}: {first.reason}")
