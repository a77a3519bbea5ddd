"""`ripieno ledger`."""

from __future__ import annotations

from pathlib import Path

import click

from ripieno.cli.options import FOLDER, prints_json
from ripieno.cli.output import count_bar, print_json, say
from ripieno.cli.running import open_ledger


@click.group(epilog="\b\nExample:\n  ripieno ledger verify")
def ledger() -> None:
    """Import, export and verify the append-only ledger."""


@ledger.command("import")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Check the folders without recording anything.")
@prints_json
def import_folders(config: Path | None, *, folders: tuple[Path, ...], dry_run: bool, as_json: bool) -> None:
    """Import the outcomes of routing-data FOLDERS. A broken folder is refused; known outcomes are not repeated."""
    from ripieno.ledger import import_data
    from ripieno.tasks import read_folder

    read = [read_folder(folder) for folder in folders]
    done = []
    with open_ledger(config) as record:
        for data in read:
            with count_bar(f"importing {data.name}", len(data.quality)) as show:
                new = 0 if dry_run else import_data(record, data, on_progress=show)
            done.append({"dataset": data.name, "outcomes": len(data.quality), "new": new})
            say(f"{data.name}: {len(data.quality)} outcomes, {new} of them new")
    if as_json:
        print_json(done)


@ledger.command("export")
@click.argument("folder", type=FOLDER)
@click.option("--dataset", required=True, help="Campaign or data set, or `traffic`.")
@click.option("--redact", is_flag=True, help="Replace secrets and personal data in prompts with marks.")
@click.option("--as-is", is_flag=True, help="Keep secrets and personal data unchanged.")
@click.pass_obj
def export_folder(config: Path | None, *, folder: Path, dataset: str, redact: bool, as_is: bool) -> None:
    """Write the outcomes of one data set into a routing-data FOLDER.

    Prompts with secrets or personal data are refused without --redact or --as-is.
    """
    from ripieno.app.build import build_scanner
    from ripieno.cli.publish import screen
    from ripieno.config import load_settings
    from ripieno.ledger import export_data
    from ripieno.tasks import write_folder

    if redact and as_is:
        raise click.UsageError("give one of --redact and --as-is")
    scanner = None if as_is else build_scanner(load_settings(config).settings)
    with open_ledger(config) as record:
        data = screen(export_data(record, dataset), scanner, redact=redact)
    write_folder(data, folder)
    say(f"{folder}: {len(data.prompts)} prompts, {len(data.models)} models, {len(data.quality)} outcomes")


@ledger.command()
@prints_json
def verify(config: Path | None, *, as_json: bool) -> None:
    """Read every entry, and check that none was changed or removed."""
    with open_ledger(config, must_exist=True) as record:
        found = record.verify()
        datasets = record.campaigns.datasets()
    if as_json:
        print_json({"entries": found.entries, "tasks": found.tasks, "head": found.head, "datasets": datasets})
        return
    click.echo(f"{found.entries} entries, {found.tasks} tasks, head {found.head}")
    for name, count in sorted(datasets.items()):
        click.echo(f"  {name}: {count} runs")
