"""Reports as data: typed rows, columns with their format, and the evidence.

A report is computed once. The command line and the web pages render its columns; JSON contains its rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """Write the mean with its interval."""
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A share with the number of its cases."""

    count: int
    share: Interval | None
    """None without enough evidence."""


class Kind(StrEnum):
    """Kind of the values of a column."""

    TEXT = "text"
    NUMBER = "number"
    MONEY = "money"
    """US dollars; None is an unknown cost."""
    SECONDS = "seconds"
    MOMENT = "moment"
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a report."""

    name: str
    """Path of the value in a row, such as `accepted.0`."""
    title: str = ""
    """Text of the heading. Default: the name."""
    kind: Kind = Kind.TEXT
    unit: str = ""
    """Unit for the heading, if the values do not show it."""
    spec: str = ",.0f"
    """Format of numbers, in Python's format language."""
    beside: str = ""
    """Path of a count that belongs to the value: the number of cases or, for money, of unknown costs."""
    least: int = 0
    """Lowest count with enough evidence to show the value."""

    @property
    def heading(self) -> str:
        """Return the text above the column."""
        named = self.title or self.name
        return f"{named}, {self.unit}" if self.unit else named

    def write(self, row: object) -> str:
        """Write the value of a row for people."""
        value: Any = read_value(row, self.name)
        count: int | None = read_value(row, self.beside) if self.beside else None
        if isinstance(value, Counted):
            value, count = value.share, value.count
        if isinstance(value, str):
            return value
        if self.kind is Kind.MONEY:
            return format_money_sum(value, count or 0)
        if count is not None and count < self.least:
            return f"{count} of {self.least}" if count else "-"
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if self.kind is Kind.SECONDS:
            return format_seconds(value)
        if self.kind is Kind.MOMENT:
            return format_moment(value)
        shown = str(value) if self.kind is Kind.TEXT else format(value, self.spec)
        return shown if count is None else f"{shown} of {count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Number of cases of a report, and the number that it needs."""

    n: int
    least: int
    unit: str = "judged"

    @property
    def shortage(self) -> str:
        """Return a sentence on the missing evidence; empty if there is enough."""
        return "" if self.n >= self.least else f"not enough evidence: {self.n} of {self.least} {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A table with its evidence and notes."""

    title: str
    columns: tuple[Column, ...] = ()
    rows: Sequence[object] = ()
    """Mappings, or objects with the columns' names as attributes."""
    evidence: Evidence | None = None
    notes: tuple[str, ...] = ()
    chosen: str = ""
    """First value of the highlighted row."""
    empty: str = "none"
    """Text in place of an empty table with enough evidence."""

    @property
    def absence(self) -> str:
        """Return the text in place of an empty table."""
        return (self.evidence.shortage if self.evidence is not None else "") or self.empty

    def write_rows(self) -> list[list[str]]:
        """Write every cell for people."""
        return [[column.write(row) for column in self.columns] for row in self.rows]


def text(name: str, title: str = "") -> Column:
    """Make a column of texts."""
    return Column(name=name, title=title)


def number(
    name: str, title: str = "", *, spec: str = ",.0f", unit: str = "", beside: str = "", least: int = 0
) -> Column:
    """Make a column of numbers, or of intervals."""
    return Column(name=name, title=title, kind=Kind.NUMBER, spec=spec, unit=unit, beside=beside, least=least)


def money(name: str, title: str = "", *, beside: str = "") -> Column:
    """Make a column of US dollars."""
    return Column(name=name, title=title, kind=Kind.MONEY, beside=beside)


def seconds(name: str, title: str = "") -> Column:
    """Make a column of times."""
    return Column(name=name, title=title, kind=Kind.SECONDS)


def list_texts(rows: Sequence[object], *names: str) -> Report:
    """Make a table of texts without a title; the names are headings and keys."""
    return Report(title="", columns=tuple(Column(name=name) for name in names), rows=rows)


def read_value(row: object, path: str) -> Any:
    """Find a value in a row by its path of keys, places and attributes."""
    for part in path.split("."):
        if isinstance(row, Mapping):
            row = row[part]
        else:
            row = row[int(part)] if isinstance(row, tuple | list) else getattr(row, part)
    return row


def format_money(value: float | None) -> str:
    """Write US dollars with three significant digits; `unknown` is not zero."""
    if value is None:
        return "unknown"
    return "$0" if value == 0 else f"${value:.3g}"


def format_money_sum(known: float | None, unknown: int) -> str:
    """Write a sum in US dollars; where parts of it are unknown, the least amount and how many."""
    return f"at least {format_money(known)}, {unknown} unknown" if unknown else format_money(known)


def format_seconds(value: float | None) -> str:
    """Write seconds, or milliseconds below one."""
    if value is None:
        return "-"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.2f} s"


def format_moment(at: float | None) -> str:
    """Write a moment, in UTC."""
    return "-" if at is None else datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
