"""`ripieno completion`: the script that lets a shell complete commands and options."""

import click
from click.shell_completion import get_completion_class


@click.command(epilog='\b\nExamples:\n  eval "$(ripieno completion bash)"\n  ripieno completion fish | source')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script for SHELL. Add the line of the example to the shell's start file."""
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "ripieno", "_RIPIENO_COMPLETE").source())
