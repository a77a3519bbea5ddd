"""The `ripieno` command: finds subcommands without importing them."""

import sys
from importlib import import_module
from pathlib import Path

import click

from ripieno.cli.removed import refuse_removed

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("ripieno.cli.demo:demo", "The whole loop on the embedded pool: measure, train, prove, serve."),
    "serve": ("ripieno.cli.serve:serve", "Serve the OpenAI-compatible address."),
    "conductor": ("ripieno.cli.conductor:conductor", "The trained writer of workflows: audit, train, evaluate, plan."),
    "runs": ("ripieno.cli.runs:runs", "Runs of several steps: list, show, resume, approve, deny."),
    "memory": ("ripieno.cli.memory:memory", "Remember, recall, and make conversations short."),
    "mcp": ("ripieno.cli.mcp:mcp", "Memory for agents that speak the Model Context Protocol."),
    "keys": ("ripieno.cli.keys:keys", "Virtual keys: create, list, revoke."),
    "ask": ("ripieno.cli.ask:ask", "Route a task and answer it."),
    "route": ("ripieno.cli.ask:route", "Decide who would take a task; call nobody."),
    "explain": ("ripieno.cli.explain:explain", "Tell one decision in words."),
    "feedback": ("ripieno.cli.explain:feedback", "Record what an answer was worth."),
    "pool": ("ripieno.cli.pool:pool", "The workers: list, check, add, probe, mute, unmute."),
    "profile": ("ripieno.cli.profile:profile", "Measure workers on tasks."),
    "train": ("ripieno.cli.train:train", "Train a router on measured outcomes."),
    "evaluate": ("ripieno.cli.evaluate:evaluate", "Prove a router on held-out tasks."),
    "policy": ("ripieno.cli.policy:policy", "Checkpoints: list, promote, rollback, shadow."),
    "top": ("ripieno.cli.top:top", "Decisions as they happen, and how the workers do."),
    "report": ("ripieno.cli.report:report", "What the record says should change."),
    "audit": ("ripieno.cli.audit:audit", "Bias and drift of the router itself."),
    "publish": ("ripieno.cli.publish:publish", "Data sets and checkpoints as folders with their papers."),
    "ledger": ("ripieno.cli.ledger:ledger", "The record: import, export, verify."),
    "config": ("ripieno.cli.setup:config", "The settings, and where each came from."),
    "doctor": ("ripieno.cli.setup:doctor", "Check the whole set-up, and list the plugins."),
    "completion": ("ripieno.cli.completion:completion", "Let bash, zsh or fish complete commands."),
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
        """All commands, in the order of a first day with Ripieno."""
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
        """List the commands from the table, so that help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file; ripieno.toml if not given. Its folder holds the home.",
)
@click.option("--verbose", is_flag=True, help="Log more, on stderr.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Lines, or JSON objects.")
@click.version_option(package_name="ripieno", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, *, config: Path | None, verbose: bool, log_format: str) -> None:
    """Ripieno learns which worker should own each task, and proves that the choice pays."""
    from ripieno.cli.logs import set_up_logs

    set_up_logs(verbose=verbose, form=log_format)
    ctx.obj = config


def main() -> None:
    """Run the command; errors become two lines on stderr and an exit code."""
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
    except Exception as error:  # noqa: BLE001  # the last line of defence; `report` raises what is not ours
        from ripieno.cli.errors import report

        sys.exit(report(error))
