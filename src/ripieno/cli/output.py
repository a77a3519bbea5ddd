"""Tables, JSON and numbers for people."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Literal

import click

from ripieno.domain.report import Column, Kind, Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn
    from rich.table import Table


def print_found(found: object, *reports: Report, as_json: bool) -> None:
    """Print what a command found: the whole as one JSON document, or its reports as tables."""
    if as_json:
        print_json(found)
        return
    for report in reports:
        print_report(report)


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_make_plain))


def print_report(report: Report) -> None:
    """Print a table and its notes on stdout."""
    if report.rows or not report.title:
        console().print(make_table(report))
    elif report.columns:
        click.echo(f"{report.title}: {report.absence}")
    for note in report.notes:
        click.echo(note)


def make_table(report: Report, *, wraps: bool = True) -> "Table":
    """Lay out a report for a terminal: texts left, numbers right. Long cells wrap or are cut off."""
    from rich.markup import escape
    from rich.table import Table

    title = escape(report.title) if report.title else None
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in report.columns:
        side: Literal["left", "right"] = "left" if column.kind is Kind.TEXT else "right"
        table.add_column(column.heading, justify=side, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
    for row in report.write_rows():
        table.add_row(*map(escape, row))
    return table


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of texts on stdout."""
    columns = tuple(Column(name=str(place), title=title) for place, title in enumerate(titles))
    print_report(Report(title="", columns=columns, rows=rows))


def say(text: str) -> None:
    """Print a line on stderr."""
    click.echo(text, err=True)


def console() -> "Console":
    """Open stdout for tables. Files get wide lines, so that no cell is folded there."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=False)


def _make_plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


@contextmanager
def count_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for a known number of things. See `open_bar`."""
    with open_bar(title) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def open_bar(title: str, *more: "ProgressColumn") -> "Progress":
    """Open a progress bar on stderr, with further columns. It shows nothing if stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), *more, TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
