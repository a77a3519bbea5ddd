"""The `ripieno` command: finds subcommands without importing them."""

import sys
from importlib import import_module
from pathlib import Path

import click

from ripieno.cli.removed import refuse_removed

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("ripieno.cli.demo:demo", "Measure, train, evaluate and serve with the embedded pool."),
    "serve": ("ripieno.cli.serve:serve", "Serve the OpenAI-compatible address."),
    "conductor": ("ripieno.cli.conductor:conductor", "The trained writer of workflows: audit, train, evaluate, plan."),
    "runs": ("ripieno.cli.runs:runs", "Runs of several steps: list, show, resume, approve, deny."),
    "memory": ("ripieno.cli.memory:memory", "Store and find items, and compact conversations."),
    "mcp": ("ripieno.cli.mcp:mcp", "Memory for agents, by the Model Context Protocol."),
    "keys": ("ripieno.cli.keys:keys", "Virtual keys: create, list, revoke."),
    "ask": ("ripieno.cli.ask:ask", "Route a task and answer it."),
    "route": ("ripieno.cli.ask:route", "Decide which worker would get a task, without a call."),
    "explain": ("ripieno.cli.explain:explain", "Explain one decision in words."),
    "feedback": ("ripieno.cli.explain:feedback", "Record the quality of an answer."),
    "pool": ("ripieno.cli.pool:pool", "The workers: list, check, add, probe, mute, unmute."),
    "profile": ("ripieno.cli.profile:profile", "Measure workers on tasks."),
    "train": ("ripieno.cli.train:train", "Train a router on measured outcomes."),
    "evaluate": ("ripieno.cli.evaluate:evaluate", "Evaluate a router on held-out tasks."),
    "policy": ("ripieno.cli.policy:policy", "Checkpoints: list, promote, rollback, shadow."),
    "top": ("ripieno.cli.top:top", "Live decisions, and a profile of each worker."),
    "report": ("ripieno.cli.report:report", "Recommended changes to the routing, from the ledger."),
    "audit": ("ripieno.cli.audit:audit", "Bias and drift of the router itself."),
    "publish": ("ripieno.cli.publish:publish", "Data sets and checkpoints as folders with their cards."),
    "ledger": ("ripieno.cli.ledger:ledger", "The ledger: import, export, verify."),
    "config": ("ripieno.cli.setup:config", "The settings, with the origin of each value."),
    "doctor": ("ripieno.cli.setup:doctor", "Check the whole setup, and list the plugins."),
    "completion": ("ripieno.cli.completion:completion", "Shell completion for bash, zsh and fish."),
}

EXAMPLES = """
\b
Examples:
  ripieno demo
  ripieno ask "What is 12% of 250?" --explain
  ripieno serve --port 4141
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List all commands, in the order in which a new user needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            refuse_removed(ctx, cmd_name)
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Format the commands from the table, so that help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file. Default: ripieno.toml. The home folder is beside it.",
)
@click.option("--verbose", is_flag=True, help="Log every request on stderr.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Format of log lines.")
@click.version_option(package_name="ripieno", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, *, config: Path | None, verbose: bool, log_format: str) -> None:
    """Learn which worker should own each task, and prove that the choice pays."""
    from ripieno.cli.logs import set_up_logs

    set_up_logs(verbose=verbose, form=log_format)
    ctx.obj = config


def main() -> None:
    """Run the command. An error becomes two lines on stderr and an exit code."""
    try:
        code = cli.main(prog_name="ripieno", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        click.echo("stopped; what was recorded stays", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("stopped; what was recorded stays", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001  # `report` raises other errors again
        from ripieno.cli.errors import report

        sys.exit(report(error))
