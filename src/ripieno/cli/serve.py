"""`ripieno serve`."""

from __future__ import annotations

import os
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
    from ripieno.app import Installation
    from ripieno.config import Settings
    from ripieno.gateway import AdminKey

EMBEDDED_WORKERS = "embedded workers, small programs for trying things out: add your own with `ripieno pool add`"

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog="\b\nExample:\n  ripieno serve --port 4141 --workers 2")
@click.option("--host", help="Address to listen on. Any other than loopback needs a key.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port. 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Number of processes.")
@click.option("--tls-cert", type=_FILE, help="Certificate with its chain, in PEM form: serve HTTPS.")
@click.option("--tls-key", type=_FILE, help="Key of the certificate, if it is in another file.")
@click.pass_obj
def serve(
    config: Path | None,
    *,
    host: str | None,
    port: int | None,
    workers: int,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Serve the OpenAI-compatible address until Ctrl-C or SIGTERM. A second signal stops without waiting."""
    from ripieno.config import load_settings

    asked = {"host": host, "port": port, "tls_cert": tls_cert, "tls_key": tls_key}
    given = {name: value for name, value in asked.items() if value is not None}
    flags: dict[str, object] = {"gateway": given} if given else {}
    settings = load_settings(config, flags=flags).settings
    _empty_other_outboxes(settings)
    if workers > 1:
        sys.exit(_serve_many(config, flags, workers))

    from ripieno.gateway import bind_socket, serve_forever

    async def work(app: Installation) -> None:
        listener = bind_socket(app.runtime.settings.gateway)
        key = _load_key(app.runtime.settings)
        await serve_forever(
            app,
            listener,
            on_ready=lambda address: _announce(app, address, key=key),
            on_stop=lambda: _report_stop(app.runtime.settings),
            admin_key=key.secret if key is not None else None,
        )

    run_app(config, work, flags=flags)


def _serve_many(config: Path | None, flags: Mapping[str, object], workers: int) -> int:
    """Serve in several processes on one socket. Return the exit code."""
    from ripieno.config import load_settings

    with tempfile.TemporaryDirectory(prefix="ripieno-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # read when the counters' module is imported

        from ripieno.gateway import bind_socket, serve_forever
        from ripieno.gateway.supervisor import Supervisor

        settings = load_settings(config, flags=flags).settings
        listener, parent = bind_socket(settings.gateway), os.getpid()
        key = _load_key(settings)

        def serve_one(index: int, is_ready: Callable[[], None]) -> int:
            async def work(app: Installation) -> None:
                def tell(address: str) -> None:
                    if index == workers - 1:
                        _announce(app, address, key=key)
                    is_ready()

                secret = key.secret if key is not None else None
                await serve_forever(app, listener, on_ready=tell, parent=parent, admin_key=secret)

            own = {"ledger": {"outbox": settings.home / f"outbox-{index}.jsonl"}} if index else {}
            try:
                run_app(config, work, flags={**flags, **own})
            except RipienoError as error:
                return report(error)
            return 0

        supervisor = Supervisor(serve_one, on_stop=lambda: _report_stop(settings))
        return supervisor.run(workers, on_ready=lambda: say(f"{workers} processes serve"))


def _empty_other_outboxes(settings: Settings) -> None:
    """Write the outboxes of earlier processes to the ledger. They stay if the ledger is still unavailable."""
    from ripieno.ledger import Ledger, Outbox

    own = settings.ledger.outbox or settings.home / "outbox.jsonl"
    for path in sorted(settings.home.glob("outbox-*.jsonl")):
        if path != own:
            Ledger(settings.ledger.url, outbox=Outbox(path)).close()


def _load_key(settings: Settings) -> AdminKey | None:
    """Load the admin key of this installation; None if a master key is set, which has the same rights."""
    from ripieno.gateway import load_admin_key

    return load_admin_key(settings.home) if settings.gateway.api_key is None else None


def _report_stop(settings: Settings) -> None:
    say(
        f"stopping: open requests have {settings.gateway.drain_s:g} s to end; "
        "a second Ctrl-C or SIGTERM ends them at once"
    )


def _announce(app: Installation, address: str, *, key: AdminKey | None) -> None:
    from ripieno.config.reload import has_own_workers

    body = shlex.quote('{"model":"auto","messages":[{"role":"user","content":"What is 12% of 250?"}]}')
    auth = ' -H "authorization: Bearer $RIPIENO_GATEWAY__API_KEY"' if key is None else ""
    local = address.replace("//0.0.0.0", "//127.0.0.1").replace("//[::]", "//[::1]")
    checkpoint = app.registry.current()
    click.echo(f"{address}/v1")
    if key is not None and key.is_new:
        say(f"admin key {key.secret}")
        say(f"it is stored in {key.path}, readable by you alone, and is not shown again")
    told = "the master key" if key is None else f"the admin key in {key.path}"
    say(f"dashboard {local}/ui; {told} lets you change things there, and use /admin")
    say(
        f"{len(app.runtime.pool)} {'workers' if has_own_workers(app.runtime.loaded.origins) else EMBEDDED_WORKERS}; "
        + (f"router {checkpoint}" if checkpoint else "no checkpoint yet: `ripieno train`")
    )
    say(f"curl {local}/v1/chat/completions -H 'content-type: application/json'{auth} -d {body}")
