"""`ripieno audit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ripieno.cli.options import prints_json
from ripieno.cli.output import print_found
from ripieno.cli.running import run_app
from ripieno.errors import GateRefused


@click.command(epilog="\b\nExample:\n  ripieno audit --last 5000")
@click.option("--last", type=click.IntRange(1), default=10_000, show_default=True, help="Number of latest decisions.")
@click.option("--gate", is_flag=True, help="Exit 5 if anything is flagged.")
@prints_json
def audit(config: Path | None, *, last: int, gate: bool, as_json: bool) -> None:
    """Check the router for bias and drift: workers with too much traffic, and what has changed."""
    from ripieno.app.policies import audit_traffic
    from ripieno.evaluate.audit import tabulate_audit

    found, drifts = run_app(config, lambda app: audit_traffic(app, last=last))
    print_found(asdict(found) | {"drifts": drifts}, *tabulate_audit(found, drifts), as_json=as_json)
    if gate and found.flags:
        first = found.flags[0]
        raise GateRefused(f"{len(found.flags)} flags; the first: {first.worker} on {first.slice}: {first.reason}")
