"""Page: what was asked for, and the HTML that answers; templates escape everything that they are not told to leave."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

ASSETS = {"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8"}
"""Files that pages refer to, with their kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something long that was begun from a page."""

    name: str
    about: str
    """The worker or checkpoint that it is about."""
    state: str
    """`running`, `done` or `failed`."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for, and by whom."""

    path: tuple[str, ...]
    """Parts of the address behind `/ui`."""
    query: Mapping[str, str] = field(default_factory=dict)
    is_admin: bool = False
    """Whether what is shown may be changed."""
    can_leave: bool = False
    """Whether a key was given, that can be taken back."""
    token: str = ""
    """What forms of this visitor carry."""
    jobs: tuple[Job, ...] = ()
    said: str = ""
    """What an action that led here has done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page, or a part of one."""

    html: str
    status: int = 200


def render(template: str, asked: Asked, **facts: object) -> str:
    """Fill a template."""
    return _templates().get_template(template).render(asked=asked, **facts)


def read_asset(name: str) -> tuple[bytes, str] | None:
    """A file that pages refer to, with its kind."""
    kind = ASSETS.get(name)
    return (_read(name), kind) if kind is not None else None


@cache
def _read(name: str) -> bytes:
    return (files("ripieno.dashboard") / "assets" / name).read_bytes()


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("ripieno.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "money": tell_money,
        "money_sum": tell_money_sum,
        "seconds": tell_seconds,
        "when": tell_when,
        "share": tell_share,
        "number": tell_number,
    }
    return environment


def tell_money(value: float | None) -> str:
    """US dollars with three digits that count; `unknown` is not zero."""
    if value is None:
        return "unknown"
    return "$0" if value == 0 else f"${value:.3g}"


def tell_money_sum(known: float, unknown: int) -> str:
    """A sum in US dollars; where parts of it are unknown, the least amount and how many."""
    if not unknown:
        return tell_money(known)
    return f"at least {tell_money(known)}, {unknown} unknown"


def tell_seconds(value: float | None) -> str:
    """A time from microseconds to minutes."""
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1.0:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s"


def tell_when(at: float | None) -> str:
    """A moment, in UTC."""
    return "-" if at is None else datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def tell_share(value: float | None) -> str:
    """A share in hundredths."""
    return "-" if value is None else f"{value:.2f}"


def tell_number(value: float) -> str:
    """A count with separated thousands."""
    return f"{value:,.0f}"
