"""Charts as SVG in the page: drawn here by pygal, coloured by the page's style sheet, without any script."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

WIDTH, HEIGHT = 640, 320
MOST_LINES = 8
"""Series of one chart: more colours cannot be told apart."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series."""

    name: str
    points: Points
    is_joined: bool = True
    """Whether its points are joined by a line."""
    labels: Sequence[str] = ()
    """What each point is, where that is not plain."""


def draw_lines(title: str, lines: Sequence[Line], *, x: str, y: str, has_log_x: bool = False) -> Markup:
    """Draw series of points.

    Args:
        title: what the chart shows, for readers who do not see it.
        lines: the series.
        x: name of the horizontal axis.
        y: name of the vertical one.
        has_log_x: whether the horizontal axis is one of powers of ten; points at or below 0 are left out.
    """
    pygal = _load_pygal()
    shown = [_take_log(line) for line in lines] if has_log_x else list(lines)
    chart = pygal.XY(**_options(x, y))
    if has_log_x:
        chart.x_labels = _name_powers([px for line in shown for px, _ in line.points])
    for line in shown[:MOST_LINES]:
        labels = line.labels or [""] * len(line.points)
        points = [{"value": point, "label": label} for point, label in zip(line.points, labels, strict=True)]
        chart.add(line.name, points, stroke=line.is_joined, dots_size=3)
    return _finish(chart, title)


def draw_bars(title: str, bars: Mapping[str, float], *, x: str) -> Markup:
    """Draw one bar for each name, the first on top."""
    pygal = _load_pygal()
    chart = pygal.HorizontalBar(**_options(x, "") | {"show_legend": False, "height": 60 + 26 * max(len(bars), 2)})
    chart.x_labels = list(bars)[::-1]  # it draws from below
    chart.add(x, list(bars.values())[::-1])
    return _finish(chart, title)


def _load_pygal() -> Any:
    """The library, without the finder for its maps: one of a kind that Python no longer knows, and warns of."""
    import pygal

    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
    return pygal


def _options(x: str, y: str) -> dict[str, object]:
    from pygal.style import Style

    style = Style(label_font_size=11, major_label_font_size=11, legend_font_size=12, title_font_size=12)
    return {
        "js": [],
        "css": [],
        "style": style,
        "width": WIDTH,
        "height": HEIGHT,
        "margin": 8,
        "margin_bottom": 26,
        "x_title": x or None,
        "y_title": y or None,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 3,
        "legend_box_size": 10,
        "truncate_legend": 28,
        "max_scale": 8,
    }


def _take_log(line: Line) -> Line:
    kept = [
        ((math.log10(px), py), label)
        for (px, py), label in zip(line.points, line.labels or [""] * len(line.points), strict=True)
        if px > 0
    ]
    return Line(
        name=line.name,
        points=[point for point, _ in kept],
        is_joined=line.is_joined,
        labels=[label for _, label in kept] if line.labels else (),
    )


def _name_powers(values: Sequence[float]) -> list[dict[str, object]]:
    if not values:
        return []
    low, high = math.floor(min(values)), math.ceil(max(values))
    return [{"value": power, "label": f"${10.0**power:.0e}"} for power in range(low, max(high, low + 1) + 1)]


def _finish(chart: Any, title: str) -> Markup:
    """The chart as markup, without scripts, styles and tooltips; what a point is, is its title."""
    root: ET.Element = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or _is_dropped(child):
                parent.remove(child)
    for element in root.iter():
        element.attrib.pop("id", None)
        element.attrib.pop("style", None)
    for dots in root.iter():
        if "dots" in dots.attrib.get("class", "").split() or dots.find("rect") is not None:
            _name_point(dots)
    root.set("class", "chart")
    root.set("role", "img")
    root.set("aria-label", title)
    found = root.find("title")
    if found is not None:
        found.text = title
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704  # built element by element, and escaped by that


def _is_dropped(element: ET.Element) -> bool:
    names = element.attrib.get("class", "").split()
    tag = element.tag.rpartition("}")[2]
    if tag == "desc":
        return not {"value", "label"} & set(names)
    return tag == "defs" or bool({"tooltip-overlay", "text-overlay"} & set(names))


def _name_point(dots: ET.Element) -> None:
    told = [desc.text or "" for desc in dots.findall("desc")]
    for desc in dots.findall("desc"):
        dots.remove(desc)
    shape = dots.find("circle") if dots.find("circle") is not None else dots.find("rect")
    if shape is not None and told:
        ET.SubElement(shape, "title").text = ": ".join(part for part in told if part)
