"""Tables, JSON and numbers for people."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column stands left, the others right."""
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        is_name = index == 0 or column in (
            "note",
            "why",
            "worker",
            "seen",
            "origin",
            "value",
            "target",
            "fault",
            "state",
        )
        table.add_column(column, justify="left" if is_name else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_escape(cell) for cell in row))
    console().print(table)


def say(text: str) -> None:
    """Words, on stderr."""
    click.echo(text, err=True)


def console() -> "Console":
    """Stdout; as wide as it takes where nobody watches, so that lines are not folded in files."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=False)


def money(value: float | None) -> str:
    """US dollars with three digits that count; `unknown` is not zero."""
    if value is None:
        return "unknown"
    return "$0" if value == 0 else f"${value:.3g}"


def money_sum(known: float, unknown: int) -> str:
    """A sum in US dollars; where parts of it are unknown, the least amount and how many."""
    if not unknown:
        return money(known)
    return f"at least {money(known)}, {unknown} unknown"


def seconds(value: float | None) -> str:
    """Seconds, or milliseconds below one."""
    if value is None:
        return "-"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.2f} s"


def _escape(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)


@contextmanager
def count_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for a known number of things on a terminal; quiet elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)
