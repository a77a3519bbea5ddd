"""`ripieno config` and `ripieno doctor`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.options import prints_json
from ripieno.cli.output import print_found, say
from ripieno.domain.report import list_texts

if TYPE_CHECKING:
    from pydantic import BaseModel


@click.group(epilog="\b\nExample:\n  ripieno config show")
def config() -> None:
    """Show the settings."""


@config.command()
@prints_json
def show(config_path: Path | None, *, as_json: bool) -> None:
    """Print every value with its origin. Secrets are not shown."""
    from ripieno.config import load_settings

    loaded = load_settings(config_path)
    rows = [
        {"key": key, "value": value, "origin": loaded.origins.get(key, "default")}
        for key, value in _flatten(loaded.settings)
    ]
    print_found(rows, list_texts(rows, "key", "value", "origin"), as_json=as_json)
    for name in () if as_json else loaded.ignored:
        say(f"{name} is ignored: no such provider or worker is configured here")


@click.command(epilog="\b\nExample:\n  ripieno doctor")
@click.option("--plugins", "wants_plugins", is_flag=True, help="List the plugins only, each with its fault.")
@click.option("--json", "as_json", is_flag=True, help="With --plugins: print one JSON document.")
@click.pass_obj
def doctor(config_path: Path | None, *, wants_plugins: bool, as_json: bool) -> None:
    """Open and check settings, ledger, memory, encoder, checkpoint, plugins and every worker.

    Print one line for each, with the fix. Exit 3 if the setup is wrong, and 4 if only workers cannot be reached.
    """
    if wants_plugins:
        show_plugins(as_json=as_json)
        return
    if as_json:
        raise click.UsageError("--json needs --plugins")
    from ripieno.cli.checkup import examine
    from ripieno.config import load_settings

    code = asyncio.run(examine(load_settings(config_path)))
    if code:
        raise click.exceptions.Exit(code)


def show_plugins(*, as_json: bool) -> None:
    """Print every installed plugin, with its fault if it cannot load."""
    from ripieno.plugins import list_plugins

    rows = [{"group": p.group, "name": p.name, "target": p.target, "fault": p.fault} for p in list_plugins()]
    print_found(rows, list_texts(rows, "group", "name", "target", "fault"), as_json=as_json)


def _flatten(part: BaseModel, prefix: str = "") -> list[tuple[str, str]]:
    from pydantic import BaseModel, SecretStr

    rows: list[tuple[str, str]] = []
    for name in [*type(part).model_fields, *(part.model_extra or {})]:
        value, key = getattr(part, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            rows.extend(_flatten(value, f"{key}."))
        elif isinstance(value, dict) and any(isinstance(item, BaseModel) for item in value.values()):
            for inner, item in value.items():
                rows.extend(_flatten(item, f"{key}.{inner}."))
        else:
            rows.append((key, "set, not shown" if isinstance(value, SecretStr) else str(value)))
    return rows
