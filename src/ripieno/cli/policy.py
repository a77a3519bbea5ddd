"""`ripieno policy`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import print_found, print_json, say
from ripieno.cli.profile import progress_bar
from ripieno.cli.running import run_app
from ripieno.domain.report import Report, number, text
from ripieno.errors import GateRefused

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.learn.promotion import StageResult


@click.group(epilog="\b\nExample:\n  ripieno policy list")
def policy() -> None:
    """The checkpoints: which one decides, and which it replaced."""


@policy.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_policies(config: Path | None, *, as_json: bool) -> None:
    """List checkpoints, oldest first."""
    from ripieno.learn.checkpoint import read_card

    async def work(app: Installation) -> list[dict[str, object]]:
        states = app.registry.states()
        cards = [read_card(app.registry.folder / version) for version in states]
        return [
            {
                "checkpoint": version,
                "state": state,
                "in_traffic": state == "in traffic",
                "on_trial": state == "canary",
                "quarantined": app.registry.quarantined(version),
                "trained_at": card.trained_at,
                "tasks": card.tasks,
                "verdict": card.verdict,
            }
            for (version, state), card in zip(states.items(), cards, strict=True)
        ]

    found = run_app(config, work, decides=False)
    rows = [row | {"note": row["quarantined"] or row["verdict"]} for row in found]
    columns = (
        text("checkpoint"), text("state"), text("trained_at", "trained"), number("tasks"), text("note"),
    )  # fmt: skip
    print_found(found, Report(title="", columns=columns, rows=rows), as_json=as_json)


@policy.command()
@click.argument("checkpoint")
@click.option("--release", is_flag=True, help="Take it out of quarantine first.")
@click.pass_obj
def promote(config: Path | None, *, checkpoint: str, release: bool) -> None:
    """Put CHECKPOINT into traffic."""
    from ripieno.app.policies import promote_by_hand

    async def work(app: Installation) -> None:
        await promote_by_hand(app, checkpoint, releases=release)

    run_app(config, work, decides=False)
    say(f"{checkpoint} decides from the next request on")


@policy.command()
@click.pass_obj
def rollback(config: Path | None) -> None:
    """End a canary's trial; where there is none, put the checkpoint back that the latest promotion replaced."""
    from ripieno.app.policies import roll_back

    say(f"{run_app(config, roll_back, decides=False)} decides again from the next request on")


@policy.command()
@click.argument("checkpoint")
@click.option("--tasks", help="Graded tasks for the paired calls; those the checkpoint learned from, if not given.")
@click.option("--pairs", type=click.IntRange(1), default=800, show_default=True, help="Most paired calls.")
@click.option("--most-cost", type=click.FloatRange(0), help="Ceiling in USD for the paired calls.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def shadow(
    config: Path | None, *, checkpoint: str, tasks: str | None, pairs: int, most_cost: float | None, as_json: bool
) -> None:
    """Hold CHECKPOINT against the one in traffic: replay, veto, paired calls; then give it a canary's share.

    Exit 5 if a stage ends it; the checkpoint in traffic stays. A canary is promoted or rolled back by what comes of it.
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
