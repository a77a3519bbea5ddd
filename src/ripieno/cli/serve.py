"""`ripieno serve`."""

import shlex
from pathlib import Path

import click

from ripieno.app import App
from ripieno.cli.output import say
from ripieno.cli.running import run_app
from ripieno.gateway import bind_socket, serve_forever


@click.command(epilog="\b\nExample:\n  ripieno serve --port 4141")
@click.option("--host", help="Address to listen on; anything but loopback needs a key.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.pass_obj
def serve(config: Path | None, *, host: str | None, port: int | None) -> None:
    """Serve the OpenAI-compatible address until Ctrl-C or SIGTERM."""
    flags = {name: value for name, value in (("host", host), ("port", port)) if value is not None}

    async def work(app: App) -> None:
        listener = bind_socket(app.settings.gateway)
        await serve_forever(app, listener, on_ready=lambda address: _announce(app, address))

    run_app(config, work, flags={"gateway": flags} if flags else None)


def _announce(app: App, address: str) -> None:
    body = shlex.quote('{"model":"auto","messages":[{"role":"user","content":"What is 12% of 250?"}]}')
    auth = " -H 'authorization: Bearer $RIPIENO_GATEWAY__API_KEY'" if app.settings.gateway.api_key else ""
    checkpoint = app.registry.current()
    click.echo(f"{address}/v1")
    say(f"{len(app.pool)} workers; " + (f"router {checkpoint}" if checkpoint else "no checkpoint yet: `ripieno train`"))
    say(f"curl {address}/v1/chat/completions -H 'content-type: application/json'{auth} -d {body}")
