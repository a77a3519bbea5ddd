"""Page: what was asked for, and the HTML that answers; templates escape everything that they are not told to leave."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ripieno.domain.report import Report, format_moment, format_money, format_money_sum, format_seconds

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


def render_file(report: Report, pictures: Mapping[str, Path]) -> str:
    """Render a report as one page with its pictures inside, to send on; nothing is loaded from elsewhere.

    Args:
        report: the table.
        pictures: SVG files by what they show.
    """
    inlined = {name: base64.b64encode(path.read_bytes()).decode("ascii") for name, path in pictures.items()}
    style = Markup(_read("style.css").decode())  # noqa: S704  # a file of this package
    return _templates().get_template("file.html").render(report=report, pictures=inlined, style=style)


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
        "money": format_money,
        "money_sum": format_money_sum,
        "seconds": format_seconds,
        "when": format_moment,
        "share": tell_share,
        "number": tell_number,
    }
    return environment


def tell_share(value: float | None) -> str:
    """A share in hundredths."""
    return "-" if value is None else f"{value:.2f}"


def tell_number(value: float) -> str:
    """A count with separated thousands."""
    return f"{value:,.0f}"
