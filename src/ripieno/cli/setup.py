"""`ripieno config`, `ripieno plugins` and `ripieno doctor`."""

from pathlib import Path

import click
from pydantic import BaseModel, SecretStr

from ripieno.app import App
from ripieno.cli.output import print_json, print_table, say
from ripieno.cli.running import run_app
from ripieno.config import load_settings
from ripieno.errors import ConfigError, ProviderError
from ripieno.plugins import list_plugins
from ripieno.verify.jail import describe_jail


@click.group(epilog="\b\nExample:\n  ripieno config show")
def config() -> None:
    """The settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def show(config_path: Path | None, *, as_json: bool) -> None:
    """Print every value and where it came from; secrets are covered."""
    loaded = load_settings(config_path)
    rows = [(key, value, loaded.origins.get(key, "default")) for key, value in _flatten(loaded.settings)]
    if as_json:
        print_json([{"key": key, "value": value, "origin": origin} for key, value, origin in rows])
        return
    print_table("", ("key", "value", "origin"), [list(row) for row in rows])


@click.group(epilog="\b\nExample:\n  ripieno plugins list")
def plugins() -> None:
    """Installed plugins."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_installed(*, as_json: bool) -> None:
    """List plugins; those that cannot load say why."""
    found = list_plugins()
    if as_json:
        print_json([{"group": p.group, "name": p.name, "target": p.target, "fault": p.fault} for p in found])
        return
    rows = [[p.group.removeprefix("ripieno."), p.name, p.target, p.fault or ""] for p in found]
    print_table("", ("group", "name", "target", "fault"), rows)


@click.command(epilog="\b\nExample:\n  ripieno doctor")
@click.pass_obj
def doctor(config_path: Path | None) -> None:
    """Check settings, ledger, checkpoint, encoder and every worker; one line each, with the mend."""

    async def work(app: App) -> int:
        say(f"settings: ok ({app.loaded.path if app.loaded.path.exists() else 'no file, defaults'})")
        found = app.ledger.verify()
        say(f"ledger: ok, {found.entries} entries ({app.settings.ledger.url})")
        say(f"encoder: ok ({app.analyzer.encoder.name})")
        say(f"checkpoint: {app.registry.current() or 'none yet; run `ripieno profile` and `ripieno train`'}")
        say(f"jail: {describe_jail()[1]}")
        failed = 0
        for worker in app.pool:
            try:
                say(f"worker {worker.id}: ok, {await app.caller.check(worker)}")
            except (ProviderError, ConfigError) as error:
                failed += 1
                say(f"worker {worker.id}: {error.message}{f'; {error.hint}' if error.hint else ''}")
        return failed

    if run_app(config_path, work):
        raise click.exceptions.Exit(4)


def _flatten(part: BaseModel, prefix: str = "") -> list[tuple[str, str]]:
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
