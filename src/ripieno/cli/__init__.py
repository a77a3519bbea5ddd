"""Commands: the only part that prints."""

from ripieno.cli.main import main

__all__ = ["main"]
