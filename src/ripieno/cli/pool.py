"""`ripieno pool`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.errors import OUT_OF_REACH
from ripieno.cli.options import prints_json
from ripieno.cli.output import print_found, print_json, say
from ripieno.cli.prices import describe_unknown_prices
from ripieno.cli.profile import progress_bar
from ripieno.cli.running import run_app
from ripieno.domain import Worker
from ripieno.domain.report import Report, format_money, list_texts, money, number, seconds, text

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.domain import Pool, WorkerId
    from ripieno.measure.probe import ProbeProfile


Measured = dict[str, tuple[int, float, float | None, float]]
_COLUMNS = (
    text("worker"), text("state"), text("privacy"), number("samples"), number("quality", spec=".2f"),
    money("cost"), seconds("latency_s", "latency"), text("notes", "note"),
)  # fmt: skip


@click.group(epilog="\b\nExample:\n  ripieno pool list")
def pool() -> None:
    """List, check, add, probe and mute workers."""


@pool.command("list")
@prints_json
def list_pool(config: Path | None, *, as_json: bool) -> None:
    """List the workers with price, limits and measured profile."""

    async def work(app: Installation) -> tuple[Pool, Measured, Mapping[WorkerId, str]]:
        return app.runtime.pool, _summarise(app), app.runtime.availability.conditions().unavailable

    workers, measured, unavailable = run_app(config, work, decides=False)
    found = [_describe(worker, measured, fault=unavailable.get(worker.id)) for worker in workers]
    rows = [row | {"cost": row["cost_usd"] if row["samples"] else "-"} for row in found]
    print_found(found, Report(title="", columns=_COLUMNS, rows=rows), as_json=as_json)
    unpriced = describe_unknown_prices(workers)
    if unpriced is not None and not as_json:
        say(unpriced)


@pool.command()
@prints_json
def check(config: Path | None, *, as_json: bool) -> None:
    """Import or reach every worker, and check that its server has the model. Exit 4 if one is unavailable."""
    from ripieno.cli.checkup import check_workers
    from ripieno.config import load_settings

    found = asyncio.run(check_workers(load_settings(config)))
    rows = [
        {"worker": each.worker, "ok": each.is_ok, "state": "ok" if each.is_ok else "FAILED", "seen": each.detail}
        for each in found
    ]
    print_found(rows, list_texts(rows, "worker", "state", "seen"), as_json=as_json)
    if not all(each.is_ok for each in found):
        raise click.exceptions.Exit(OUT_OF_REACH)


@pool.command()
@click.argument("worker")
@click.pass_obj
def mute(config: Path | None, *, worker: str) -> None:
    """Exclude WORKER from routing, here and in running gateways, until it is unmuted."""
    _change_muted(config, worker, is_muted=True)


@pool.command()
@click.argument("worker")
@click.pass_obj
def unmute(config: Path | None, *, worker: str) -> None:
    """Allow WORKER to take tasks again."""
    _change_muted(config, worker, is_muted=False)


@pool.command()
@click.argument("worker")
@click.option("--budget", type=click.IntRange(1), default=20, show_default=True, help="Most probes in all.")
@click.option("--tasks", help="Tasks as in `ripieno profile`. Default: those the checkpoint in traffic was trained on.")
@click.option("--most-cost", type=click.FloatRange(0), help="Ceiling in USD.")
@prints_json
def probe(
    config: Path | None, *, worker: str, budget: int, tasks: str | None, most_cost: float | None, as_json: bool
) -> None:
    """Measure WORKER on the few tasks that tell most about its use.

    A new worker is masked until it is probed, then runs in shadow, then on trial, then freely. The same command with a
    larger budget continues the probes.
    """
    from ripieno.app.probing import probe as run_probes

    async def work(app: Installation) -> ProbeProfile:
        with progress_bar("probing") as show:
            return await run_probes(app, worker, budget=budget, tasks=tasks, most_cost=most_cost, on_progress=show)

    found = run_app(config, work)
    if as_json:
        print_json(asdict(found))
        return
    click.echo(f"{worker}: {found.probes} probes, {format_money(found.spent_usd)} spent in this run")
    if found.unjudged:
        click.echo(f"{found.unjudged} of them have no verdict and are not used: their judge failed")
    click.echo(f"expected quality {found.quality:.2f} +- {found.quality_sd:.2f} over these tasks")
    click.echo(f"likely the best worker for {found.chance_best:.0%} of them")
    click.echo(f"standing: {found.standing}{', more probes would change little' if found.is_settled else ''}")


@pool.command()
@click.argument("worker")
@click.option("--provider", required=True, help="Name of the provider, in a-z, 0-9 and _.")
@click.option("--base-url", help="For a new OpenAI-compatible provider: its address up to /v1.")
@click.option("--model", help="The provider's name for the model. Default: WORKER.")
@click.option("--context-window", type=click.IntRange(1), help="Tokens.")
@click.option("--price-in", type=click.FloatRange(0), help="USD per million input tokens.")
@click.option("--price-out", type=click.FloatRange(0), help="USD per million output tokens.")
@click.option("--free", is_flag=True, help="State that calls cost nothing.")
@click.option("--usd-per-cpu-s", type=click.FloatRange(0), help="For a worker on this machine: USD per CPU second.")
@click.option("--privacy", type=click.Choice(["local", "private", "public"]), default="public", show_default=True)
@click.option(
    "--keep-embedded", is_flag=True, help="Also write the embedded pool into the file, if the file has no workers."
)
@click.option("--dry-run", is_flag=True, help="Print the new file without writing it.")
@click.pass_obj
def add(
    config: Path | None,
    *,
    worker: str,
    provider: str,
    base_url: str | None,
    model: str | None,
    context_window: int | None,
    price_in: float | None,
    price_out: float | None,
    free: bool,
    usd_per_cpu_s: float | None,
    privacy: str,
    keep_embedded: bool,
    dry_run: bool,
) -> None:
    """Add WORKER to ripieno.toml. The file changes only if the result is valid."""
    from ripieno.app.pool_file import NewWorker, add_worker
    from ripieno.config import FILE

    facts = {
        "privacy": privacy,
        "model": model,
        "context_window": context_window,
        "input_usd_per_mtok": price_in,
        "output_usd_per_mtok": price_out,
        "price": "free" if free else None,
        "usd_per_cpu_s": usd_per_cpu_s,
    }
    given = {name: value for name, value in facts.items() if value is not None}
    new = NewWorker(id=worker, provider=provider, facts=given, base_url=base_url)
    path = config or Path(FILE)
    text = add_worker(path, new, keeps_embedded=keep_embedded, is_dry=dry_run)
    if dry_run:
        click.echo(text)
    else:
        say(f"a new worker climbs from shadow to traffic: `ripieno pool probe {worker}`")
        say(f"added {worker} to {path}; a key goes into RIPIENO_PROVIDERS__{provider.upper()}__API_KEY")


def _change_muted(config: Path | None, worker: str, *, is_muted: bool) -> None:
    from ripieno.app.pool_file import set_muted
    from ripieno.config import FILE

    set_muted(config or Path(FILE), worker, is_muted=is_muted)
    state = "muted" if is_muted else "back"
    say(f"{worker} is {state}; running gateways that accept the file see it at their next request")


def _summarise(app: Installation) -> Measured:
    from ripieno.evaluate.observed import mean_known

    sums: dict[str, list[float]] = {}
    costs: dict[str, list[float | None]] = {}
    for row in app.ledger.outcomes.measured():
        total = sums.setdefault(row.outcome.worker, [0.0, 0.0, 0.0])
        costs.setdefault(row.outcome.worker, []).append(row.outcome.cost_usd)
        for index, value in enumerate((1.0, row.outcome.quality, row.outcome.latency_s)):
            total[index] += value or 0.0
    return {w: (int(n), q / n, mean_known(costs[w]), latency / n) for w, (n, q, latency) in sums.items()}


def _describe(worker: Worker, measured: Measured, *, fault: str | None) -> dict[str, object]:
    count, quality, cost, latency = measured.get(worker.id, (0, None, None, None))
    has_price = worker.price.is_known and worker.price.prices_output
    return {
        "worker": worker.id,
        "provider": worker.binding.provider,
        "model": worker.binding.model,
        "muted": worker.is_muted,
        "state": "muted" if worker.is_muted else "unavailable" if fault is not None else "ready",
        "fault": fault,
        "privacy": worker.privacy,
        "context_window": worker.context_window,
        "input_usd_per_mtok": worker.price.input_usd_per_mtok if worker.price.is_known else None,
        "output_usd_per_mtok": worker.price.output_usd_per_mtok if has_price else None,
        "price_known": has_price,
        "samples": count,
        "quality": quality,
        "cost_usd": cost,
        "latency_s": latency,
        "notes": worker.notes,
    }
