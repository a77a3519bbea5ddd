"""`ripieno publish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import say
from ripieno.cli.running import run_app
from ripieno.errors import InvalidTask

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.privacy import Scanner
    from ripieno.tasks import RoutingData


_FOLDER = click.Path(path_type=Path, exists=False, file_okay=False)


@click.command(epilog="\b\nExample:\n  ripieno publish out/ --dataset demo --licence mit --source demo=mit")
@click.argument("folder", type=_FOLDER)
@click.option("--dataset", help="A campaign or data set of the ledger.")
@click.option("--data", type=_FOLDER, help="A routing-data folder.")
@click.option("--checkpoint", help="A checkpoint, by its version.")
@click.option("--licence", required=True, help="SPDX identifier of what is published, as apache-2.0.")
@click.option("--source", "sources", multiple=True, help="SOURCE=LICENCE of a source of prompts; all need one.")
@click.option("--redact", is_flag=True, help="Replace secrets and personal data in prompts with a mark.")
@click.option("--as-is", is_flag=True, help="Write secrets and personal data as they are.")
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
    """Write a data set or a checkpoint into FOLDER in the form of Hugging Face; nothing is sent anywhere.

    Prompts that hold secrets or personal data are refused, unless --redact or --as-is says what to do with them.
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
    """A data set as it may leave: refused, or redacted, where it holds something; as it is without a scanner.

    Raises:
        GateRefused: it holds secrets or personal data.
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
