"""`ripieno mcp`: memory for agents that speak the Model Context Protocol."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.running import run_memory
from ripieno.domain.memory import Scope
from ripieno.domain.objective import Privacy

if TYPE_CHECKING:
    from ripieno.app import MemoryApp


@click.command(epilog="\b\nExample:\n  ripieno mcp --project web")
@click.option("--project", default="", help="Project of the memory. Default: shared by all projects.")
@click.option("--user", default="", help="User of the memory. Default: shared by all users.")
@click.option("--reach", type=click.Choice([each.value for each in Privacy]), default="public", show_default=True,
              help="How far recalled items may travel: the location of the agent's model.")  # fmt: skip
@click.pass_obj
def mcp(config: Path | None, *, project: str, user: str, reach: str) -> None:
    """Serve remember, recall and memory_status over stdin and stdout, until stdin closes."""
    from ripieno.gateway.mcp import make_server

    async def work(app: "MemoryApp") -> None:
        server = make_server(lambda: app.memory, Scope(project=project, user=user), reach=Privacy(reach))
        await server.run_stdio_async()

    run_memory(config, work)
