"""`ripieno policy`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.options import prints_json
from ripieno.cli.output import print_found, print_json, say
from ripieno.cli.profile import progress_bar
from ripieno.cli.running import run_app
from ripieno.domain.report import Report, number, text
from ripieno.errors import CheckpointError, GateRefused

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.learn.promotion import StageResult


@click.group(epilog="\b\nExample:\n  ripieno policy list")
def policy() -> None:
    """List, promote, roll back and compare checkpoints."""


@policy.command("list")
@prints_json
def list_policies(config: Path | None, *, as_json: bool) -> None:
    """List checkpoints, oldest first."""
    from ripieno.learn.checkpoint import read_card

    async def work(app: Installation) -> list[dict[str, object]]:
        listed = []
        for version, state in app.registry.states().items():
            try:
                card = read_card(app.registry.folder / version)
                facts = {"trained_at": card.trained_at, "tasks": card.tasks, "verdict": card.verdict}
            except CheckpointError as error:
                facts = {"trained_at": None, "tasks": None, "verdict": f"damaged: {error.message}"}
            listed.append(
                {
                    "checkpoint": version,
                    "state": state,
                    "in_traffic": state == "in traffic",
                    "on_trial": state == "canary",
                    "quarantined": app.registry.quarantined(version),
                    **facts,
                }
            )
        return listed

    found = run_app(config, work, decides=False)
    rows = [row | {"note": row["quarantined"] or row["verdict"]} for row in found]
    columns = (
        text("checkpoint"), text("state"), text("trained_at", "trained"), number("tasks"), text("note"),
    )  # fmt: skip
    print_found(found, Report(title="", columns=columns, rows=rows), as_json=as_json)


@policy.command()
@click.argument("checkpoint")
@click.option("--release", is_flag=True, help="Release it from quarantine first.")
@click.pass_obj
def promote(config: Path | None, *, checkpoint: str, release: bool) -> None:
    """Put CHECKPOINT into traffic."""
    from ripieno.app.policies import promote_by_hand

    run_app(config, lambda app: promote_by_hand(app, checkpoint, releases=release), decides=False)
    say(f"{checkpoint} decides from the next request on")


@policy.command()
@click.pass_obj
def rollback(config: Path | None) -> None:
    """End a canary. Without one, restore the checkpoint that the latest promotion replaced."""
    from ripieno.app.policies import roll_back

    say(f"{run_app(config, roll_back, decides=False)} decides again from the next request on")


@policy.command()
@click.argument("checkpoint")
@click.option("--tasks", help="Graded tasks for the paired calls. Default: those the checkpoint was trained on.")
@click.option("--pairs", type=click.IntRange(1), default=800, show_default=True, help="Most paired calls.")
@click.option("--most-cost", type=click.FloatRange(0), help="Ceiling in USD for the paired calls.")
@prints_json
def shadow(
    config: Path | None, *, checkpoint: str, tasks: str | None, pairs: int, most_cost: float | None, as_json: bool
) -> None:
    """Compare CHECKPOINT with the one in traffic by replay, veto and paired calls. Then start it as a canary.

    Exit 5 if a stage rejects it. The outcomes of the canary then promote it or roll it back.
    """
    from ripieno.app.policies import Pairing
    from ripieno.app.policies import shadow as hold
    from ripieno.learn.promotion import CANARY_SHARE

    async def work(app: Installation) -> list[StageResult]:
        found: list[StageResult] = []
        with progress_bar("paired calls") as show:
            pairing = Pairing(tasks=tasks, pairs=pairs, most_cost_usd=most_cost, on_progress=show)
            async for finding in hold(app, checkpoint, pairing):
                found.append(finding)
                say(f"{finding.stage}: {finding.reason}")
        return found

    found = run_app(config, work, decides=False)
    if as_json:
        print_json([asdict(finding) for finding in found])
    if not found[-1].passed:
        raise GateRefused(f"{checkpoint} is not promoted: {found[-1].reason}")
    say(f"{checkpoint} decides {CANARY_SHARE:.0%} of the tasks from the next request on")
