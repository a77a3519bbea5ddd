"""`ripieno audit`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from ripieno.app import App
from ripieno.cli.output import print_json, print_table
from ripieno.cli.running import run_app
from ripieno.domain import Decision, Estimate, Features
from ripieno.errors import GateRefused, NotFound
from ripieno.evaluate.audit import LEAST_CELL, Audit, Audited
from ripieno.evaluate.audit import audit as look
from ripieno.learn.logs import read_decisions


@click.command(epilog="\b\nExample:\n  ripieno audit --last 5000")
@click.option("--last", type=click.IntRange(1), default=10_000, show_default=True, help="Latest decisions to look at.")
@click.option("--gate", is_flag=True, help="Exit 5 if anything is flagged.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def audit(config: Path | None, *, last: int, gate: bool, as_json: bool) -> None:
    """Look for bias and drift of the router itself: who gets more than it earns, where, and what has changed."""

    async def work(app: App) -> tuple[Audit, list[str]]:
        logged = list(read_decisions(app.ledger))[-last:]
        if not logged:
            raise NotFound("no decision is recorded yet", hint="make some: `ripieno ask TEXT`, or serve traffic")
        features = await app.analyzer.analyze_many([row.task for row in logged])
        rows = [
            Audited(decision=row.decision, features=found, quality=row.quality if row.is_realised else None)
            for row, found in zip(logged, features, strict=True)
        ]
        router = app.brain().router

        def estimate(changed: Features, decision: Decision) -> Sequence[Estimate]:
            eligible = [worker for worker in app.pool if worker.id in decision.mask.eligible]
            return router.predictor.estimate(changed, eligible) if eligible else decision.estimates

        found = look(rows, policy=router.policy, estimate=estimate)
        drifts = getattr(router.predictor, "drifts", [])
        return found, list(drifts)

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
