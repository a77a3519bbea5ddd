"""Removed commands and values. Their errors name the replacement."""

from collections.abc import Mapping, Sequence

import click

COMMANDS: Mapping[str, str] = {
    "approvals": "ripieno runs list`, `ripieno runs approve` and `ripieno runs deny",
    "plugins": "ripieno doctor --plugins",
}
"""Removed commands, each with its successors."""


def refuse_removed(ctx: click.Context, name: str) -> None:
    """Refuse a command that was removed.

    Raises:
        click.UsageError: the command was removed. The error names its successors.
    """
    if name in COMMANDS:
        raise click.UsageError(f"`ripieno {name}` was removed: use `{COMMANDS[name]}`", ctx)


class ChoiceWithRemoved(click.Choice[str]):
    """A choice that also knows the removed names, each with its replacement."""

    def __init__(self, names: Sequence[str], *, removed: Mapping[str, str]) -> None:
        super().__init__(names)
        self.removed = removed

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name."""
        if value in self.removed:
            self.fail(f"{value!r} was removed: use {self.removed[value]}", param, ctx)
        return super().convert(value, param, ctx)
