"""Page: a request for a page, and its HTML; templates escape every value."""

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
"""Files of pages, with their media types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Long work that a page started."""

    name: str
    about: str
    """The worker or checkpoint of the job."""
    state: str
    """`running`, `done` or `failed`."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """The page that is requested, and the visitor's permissions."""

    path: tuple[str, ...]
    """Parts of the address after `/ui`."""
    query: Mapping[str, str] = field(default_factory=dict)
    is_admin: bool = False
    """Whether the visitor may change things."""
    can_leave: bool = False
    """Whether the visitor entered a key, and can leave."""
    token: str = ""
    """The token of this visitor's forms."""
    jobs: tuple[Job, ...] = ()
    notice: str = ""
    """The result of the action before this page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page, or a part of one."""

    html: str
    status: int = 200


def render(template: str, request: PageRequest, **facts: object) -> str:
    """Fill a template."""
    return _templates().get_template(template).render(request=request, **facts)


def render_file(report: Report, pictures: Mapping[str, Path]) -> str:
    """Render a report as one HTML file that includes its pictures.

    Args:
        report: the table.
        pictures: SVG files by their captions.
    """
    inlined = {name: base64.b64encode(path.read_bytes()).decode("ascii") for name, path in pictures.items()}
    style = Markup(_read("style.css").decode())  # noqa: S704  # a file of this package
    return _templates().get_template("file.html").render(report=report, pictures=inlined, style=style)


def read_asset(name: str) -> tuple[bytes, str] | None:
    """Read a file of pages, with its media type; None if there is no such file."""
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
        "share": format_share,
        "number": format_count,
    }
    return environment


def format_share(value: float | None) -> str:
    """Format a share with two decimals."""
    return "-" if value is None else f"{value:.2f}"


def format_count(value: float) -> str:
    """Format a count with separated thousands."""
    return f"{value:,.0f}"
