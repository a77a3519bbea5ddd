"""`ripieno policy`."""

from pathlib import Path

import click

from ripieno.app import App
from ripieno.cli.output import print_json, print_table, say
from ripieno.cli.running import run_app
from ripieno.domain import Promoted
from ripieno.errors import NotFound
from ripieno.learn.checkpoint import read_card, require_shared_workers
from ripieno.learn.train import promote as put_in_traffic


@click.group(epilog="\b\nExample:\n  ripieno policy list")
def policy() -> None:
    """The checkpoints: which one decides, and which it replaced."""


@policy.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_policies(config: Path | None, *, as_json: bool) -> None:
    """List checkpoints, oldest first."""

    async def work(app: App) -> list[dict[str, object]]:
        current = app.registry.current()
        return [
            {
                "checkpoint": version,
                "in_traffic": version == current,
                "trained_at": card.trained_at,
                "tasks": card.tasks,
                "verdict": card.verdict,
            }
            for version in app.registry.versions()
            for card in [read_card(app.registry.folder / version)]
        ]

    found = run_app(config, work, decides=False)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            str(f["checkpoint"]),
            "in traffic" if f["in_traffic"] else "saved",
            str(f["trained_at"]),
            str(f["tasks"]),
            str(f["verdict"]),
        ]
        for f in found
    ]
    print_table("", ("checkpoint", "state", "trained", "tasks", "note"), rows)


@policy.command()
@click.argument("checkpoint")
@click.pass_obj
def promote(config: Path | None, *, checkpoint: str) -> None:
    """Put CHECKPOINT into traffic."""

    async def work(app: App) -> None:
        if checkpoint in app.registry.versions():
            card = read_card(app.registry.folder / checkpoint)
            require_shared_workers(card, app.pool.ids, version=checkpoint)
        await put_in_traffic(app.registry, app.ledger, checkpoint, reason="by hand")

    run_app(config, work, decides=False)
    say(f"{checkpoint} decides from the next request on")


@policy.command()
@click.pass_obj
def rollback(config: Path | None) -> None:
    """Put the checkpoint back that the latest promotion replaced."""

    async def work(app: App) -> str:
        promotions = [s.entry for s in app.ledger.read(kinds=("promoted",)) if isinstance(s.entry, Promoted)]
        previous = promotions[-1].previous if promotions else None
        if previous is None:
            raise NotFound("the latest promotion replaced no checkpoint")
        await put_in_traffic(app.registry, app.ledger, previous, reason="rollback")
        return previous

    say(f"{run_app(config, work, decides=False)} decides again from the next request on")
