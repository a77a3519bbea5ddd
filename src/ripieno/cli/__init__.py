"""Commands; the only place that prints."""

from ripieno.cli.main import main

__all__ = ["main"]
