"""`ripieno keys`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import click

from ripieno.cli.options import prints_json
from ripieno.cli.output import print_json, print_table, say
from ripieno.cli.running import open_ledger
from ripieno.domain import KeyLimits, Privacy
from ripieno.domain.report import format_money_sum
from ripieno.errors import NotFound


@click.group(epilog="\b\nExample:\n  ripieno keys create team-a --usd-per-day 5")
def keys() -> None:
    """Manage virtual keys with their budgets, rates and workers."""


@keys.command(epilog="\b\nExample:\n  ripieno keys create team-a --usd-per-day 5 --worker qwen3-8b --privacy private")
@click.argument("name")
@click.option("--usd-per-day", type=click.FloatRange(min=0, min_open=True), help="Budget per UTC day.")
@click.option("--usd-per-month", type=click.FloatRange(min=0, min_open=True), help="Budget per UTC month.")
@click.option("--requests-per-minute", type=click.IntRange(min=1), help="Most requests in any minute.")
@click.option("--tokens-per-minute", type=click.IntRange(min=1), help="Most input and output tokens in any minute.")
@click.option("--worker", "workers", multiple=True, help="A worker that the key may use. Default: all.")
@click.option("--privacy", type=click.Choice([p.value for p in Privacy]), help="How far its tasks may travel.")
@prints_json
def create(
    config: Path | None,
    *,
    name: str,
    usd_per_day: float | None,
    usd_per_month: float | None,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    workers: tuple[str, ...],
    privacy: str | None,
    as_json: bool,
) -> None:
    """Create a key, and print its secret, which is never shown again."""
    from ripieno.config import load_settings
    from ripieno.gateway.admin import describe_key

    limits = KeyLimits(
        usd_per_day=usd_per_day,
        usd_per_month=usd_per_month,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        workers=workers,
        privacy=Privacy(privacy) if privacy is not None else Privacy.PUBLIC,
    )
    known = load_settings(config).settings.workers
    for worker in workers:
        if worker not in known:
            raise NotFound(f"no worker is called {worker!r}", hint=f"workers: {', '.join(sorted(known)[:20])}")
    with open_ledger(config) as record:
        key, secret = record.keys.create(name, limits)
    if as_json:
        print_json({**describe_key(key, {}), "secret": secret})
        return
    click.echo(secret)
    say(f"key {key.id} for {name}: keep the secret, it is not shown again")


@keys.command("list", epilog="\b\nExample:\n  ripieno keys list --json")
@prints_json
def list_keys(config: Path | None, *, as_json: bool) -> None:
    """List every key with its limits and its spending."""
    from ripieno.gateway.admin import describe_keys

    with open_ledger(config) as record:
        found = describe_keys(record.keys, now=time.time())
    if as_json:
        print_json(found)
        return
    rows = [
        [
            str(key["id"]),
            str(key["name"]),
            "revoked" if key["revoked_at"] else "live",
            _format_limits(cast(dict[str, object], key["limits"])),
            *_format_spent(cast(list[dict[str, object]], key["spent"])),
        ]
        for key in found
    ]
    print_table(["key", "name", "state", "limits", "today", "this month"], rows)


@keys.command(epilog="\b\nExample:\n  ripieno keys revoke k0123456789")
@click.argument("key")
@click.pass_obj
def revoke(config: Path | None, *, key: str) -> None:
    """Revoke KEY, given by its id."""
    with open_ledger(config) as record:
        ended = record.keys.revoke(key)
    say(f"key {ended.id} ({ended.name}) is revoked; a running gateway refuses it within seconds")


def _format_limits(limits: dict[str, object]) -> str:
    told = [f"{name} {value}" for name, value in limits.items() if value not in (None, (), "public")]
    return ", ".join(told) or "none"


def _format_spent(spent: list[dict[str, object]]) -> tuple[str, str]:
    told = {
        len(str(part["period"])): format_money_sum(cast(float, part["cost_usd"]), cast(int, part["unknown"]))
        for part in spent
    }
    return told.get(10, "$0"), told.get(7, "$0")  # a period without requests costs nothing
