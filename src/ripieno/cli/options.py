"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

import click

Given = ParamSpec("Given")

FOLDER = click.Path(path_type=Path, file_okay=False)


def prints_json(command: Callable[Concatenate[Path | None, Given], None]) -> Callable[Given, None]:
    """Add the option `--json`, and pass the path of the settings file."""
    option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    return option(click.pass_obj(command))
