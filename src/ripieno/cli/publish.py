"""`ripieno publish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.options import FOLDER
from ripieno.cli.output import say
from ripieno.cli.running import run_app
from ripieno.errors import InvalidTask

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.privacy import Scanner
    from ripieno.tasks import RoutingData


@click.command(epilog="\b\nExample:\n  ripieno publish out/ --dataset demo --licence mit --source demo=mit")
@click.argument("folder", type=FOLDER)
@click.option("--dataset", help="A campaign or data set of the ledger.")
@click.option("--data", type=FOLDER, help="A routing-data folder.")
@click.option("--checkpoint", help="A checkpoint, by its version.")
@click.option("--licence", required=True, help="SPDX identifier of the licence, such as apache-2.0.")
@click.option("--source", "sources", multiple=True, help="SOURCE=LICENCE for each source of prompts.")
@click.option("--redact", is_flag=True, help="Replace secrets and personal data in prompts with marks.")
@click.option("--as-is", is_flag=True, help="Keep secrets and personal data unchanged.")
@click.pass_obj
def publish(
    config: Path | None,
    *,
    folder: Path,
    dataset: str | None,
    data: Path | None,
    checkpoint: str | None,
    licence: str,
    sources: tuple[str, ...],
    redact: bool,
    as_is: bool,
) -> None:
    """Write a data set or a checkpoint into FOLDER in the format of Hugging Face. Nothing is sent.

    Prompts with secrets or personal data are refused without --redact or --as-is.
    """
    from ripieno.app.build import build_scanner
    from ripieno.app.sources import load_measured
    from ripieno.learn.publish import publish_checkpoint, publish_dataset
    from ripieno.tasks import read_folder

    if redact and as_is:
        raise click.UsageError("give one of --redact and --as-is")
    if sum(given is not None for given in (dataset, data, checkpoint)) != 1:
        raise click.UsageError("name one of --dataset, --data and --checkpoint")
    terms = dict(_split(source) for source in sources)

    async def work(app: Installation) -> Path:
        scanner = None if as_is else build_scanner(app.runtime.settings)
        if checkpoint is not None:
            return publish_checkpoint(app.registry.folder / checkpoint, folder, licence=licence, scanner=scanner)
        source = read_folder(data) if data is not None else load_measured(app, dataset)
        source = screen(source, scanner, redact=redact)
        return publish_dataset(source, folder, licence=licence, sources=terms)

    written = run_app(config, work, decides=False)
    for path in sorted(written.iterdir()):
        say(f"wrote {path}")


def screen(data: RoutingData, scanner: Scanner | None, *, redact: bool) -> RoutingData:
    """Refuse or redact a data set with sensitive data. Without a scanner, it stays unchanged.

    Raises:
        GateRefused: the data set has secrets or personal data, and `redact` is not set.
    """
    from ripieno.learn.screening import describe_counts, require_clean, screen_data

    if scanner is None:
        return data
    screened = screen_data(data, scanner)
    if not redact:
        require_clean(screened)
    elif screened.counts:
        say(f"replaced in {len(screened.places)} places: {describe_counts(screened.counts)}")
    return screened.data


def _split(source: str) -> tuple[str, str]:
    name, _, terms = source.partition("=")
    if not (name and terms):
        raise InvalidTask(f"--source needs SOURCE=LICENCE, got {source!r}", param="source")
    return name, terms
