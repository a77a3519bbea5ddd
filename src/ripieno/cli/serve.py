"""`ripieno serve`."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.errors import report
from ripieno.cli.output import say
from ripieno.cli.running import run_app
from ripieno.errors import RipienoError

if TYPE_CHECKING:
    from ripieno.app import App
    from ripieno.config import Settings


@click.command(epilog="\b\nExample:\n  ripieno serve --port 4141 --workers 2")
@click.option("--host", help="Address to listen on; anything but loopback needs a key.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that serve.")
@click.pass_obj
def serve(config: Path | None, *, host: str | None, port: int | None, workers: int) -> None:
    """Serve the OpenAI-compatible address until Ctrl-C or SIGTERM."""
    from ripieno.config import load_settings

    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    flags: dict[str, object] = {"gateway": given} if given else {}
    _empty_other_outboxes(load_settings(config, flags=flags).settings)
    key = secrets.token_urlsafe(12)
    if workers > 1:
        sys.exit(_serve_many(config, flags, workers, dashboard_key=key))

    from ripieno.gateway.serve import bind_socket, serve_forever

    async def work(app: App) -> None:
        listener = bind_socket(app.settings.gateway)
        await serve_forever(
            app, listener, on_ready=lambda address: _announce(app, address, dashboard_key=key), dashboard_key=key
        )

    run_app(config, work, flags=flags)


def _serve_many(config: Path | None, flags: Mapping[str, object], workers: int, *, dashboard_key: str) -> int:
    """Serve in several processes on one socket; gives the exit code."""
    from ripieno.config import load_settings

    with tempfile.TemporaryDirectory(prefix="ripieno-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # read when the counters' module is imported

        from ripieno.gateway.serve import bind_socket, serve_forever
        from ripieno.gateway.supervisor import Supervisor

        settings = load_settings(config, flags=flags).settings
        listener, parent = bind_socket(settings.gateway), os.getpid()

        def serve_one(index: int, is_ready: Callable[[], None]) -> int:
            async def work(app: App) -> None:
                def tell(address: str) -> None:
                    if index == workers - 1:
                        _announce(app, address, dashboard_key=dashboard_key)
                    is_ready()

                await serve_forever(app, listener, on_ready=tell, parent=parent, dashboard_key=dashboard_key)

            own = {"ledger": {"outbox": settings.home / f"outbox-{index}.jsonl"}} if index else {}
            try:
                run_app(config, work, flags={**flags, **own})
            except RipienoError as error:
                return report(error)
            return 0

        return Supervisor(serve_one).run(workers, on_ready=lambda: say(f"{workers} processes serve"))


def _empty_other_outboxes(settings: Settings) -> None:
    """Write what processes of an earlier start have left aside; where the ledger is still gone, it stays there."""
    from ripieno.ledger import Ledger, Outbox

    own = settings.ledger.outbox or settings.home / "outbox.jsonl"
    for path in sorted(settings.home.glob("outbox-*.jsonl")):
        if path != own:
            Ledger(settings.ledger.url, outbox=Outbox(path)).close()


def _announce(app: App, address: str, *, dashboard_key: str) -> None:
    body = shlex.quote('{"model":"auto","messages":[{"role":"user","content":"What is 12% of 250?"}]}')
    auth = " -H 'authorization: Bearer $RIPIENO_GATEWAY__API_KEY'" if app.settings.gateway.api_key else ""
    checkpoint = app.registry.current()
    click.echo(f"{address}/v1")
    told = "the master key" if app.settings.gateway.api_key else f"the key {dashboard_key}, made for this start,"
    say(f"dashboard {address}/ui; {told} lets you change things there")
    say(f"{len(app.pool)} workers; " + (f"router {checkpoint}" if checkpoint else "no checkpoint yet: `ripieno train`"))
    say(f"curl {address}/v1/chat/completions -H 'content-type: application/json'{auth} -d {body}")
