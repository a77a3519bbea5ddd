"""Charts as SVG without scripts: pygal draws them in a process of its own, the page's style sheet colours them.

Run as a script, this module draws the chart that it reads from stdin, and writes it to stdout.
"""

import asyncio
import json
import logging
import math
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

from ripieno.drawing import load_pygal, name_powers, render

WIDTH, HEIGHT = 640, 320
MOST_LINES = 8
"""Series in one chart: readers cannot distinguish more colours."""
MOST_POINTS = 2_000
"""Points in one series."""
LONGEST_LABEL = 40
"""Characters of a name in a chart. If labels leave no width for titles, pygal wraps the titles for ever."""
DRAWING_S = 20.0
"""Seconds for drawing; after them the page is shown without its chart."""
LARGEST = 1 << 20
"""Bytes of a drawn chart."""
KEPT = 64
"""Drawn charts in memory: most are requested again unchanged."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of points."""

    name: str
    points: Sequence[tuple[float, float]]
    is_joined: bool = True
    """Whether a line joins its points."""
    labels: Sequence[str] = ()
    """A name for each point, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart of lines or of bars."""

    title: str
    """What the chart shows, for screen readers."""
    x: str
    """Name of the horizontal axis."""
    y: str = ""
    """Name of the vertical axis."""
    lines: Sequence[Series] = ()
    bars: Mapping[str, float] = field(default_factory=dict)
    """Instead of lines: one bar for each name, the first on top."""
    has_log_x: bool = False
    """Whether the horizontal axis is logarithmic; points at or below 0 are left out."""


_drawn: "OrderedDict[bytes, Markup]" = OrderedDict()


async def draw(chart: Chart) -> Markup | None:
    """Draw a chart in another process; None if that fails or takes more than `DRAWING_S`."""
    packed = json.dumps(asdict(chart)).encode()
    known = _drawn.get(packed)
    if known is not None:
        _drawn.move_to_end(packed)
        return known
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LARGEST
    )
    try:
        async with asyncio.timeout(DRAWING_S):
            output, _ = await child.communicate(packed)
    except TimeoutError:
        log.warning("a chart was not drawn within %g s: %s", DRAWING_S, chart.title)
        return None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode or len(output) > LARGEST:
        log.warning("a chart could not be drawn: %s", chart.title)
        return None
    made = _drawn[packed] = Markup(output.decode())  # noqa: S704  # built element by element, and escaped by that
    if len(_drawn) > KEPT:
        _drawn.popitem(last=False)
    return made


def draw_here(chart: Chart) -> Markup:
    """Draw a chart in this process."""
    return _draw_bars(chart) if chart.bars else _draw_lines(chart)


def _draw_lines(drawn: Chart) -> Markup:
    chart = load_pygal().XY(**_options(drawn.x, drawn.y))
    plotted = [(line, _list_points(line, is_log=drawn.has_log_x)) for line in drawn.lines[:MOST_LINES]]
    if drawn.has_log_x:
        chart.x_labels = name_powers([point["value"][0] for _, points in plotted for point in points])
    for line, points in plotted:
        chart.add(_clip(line.name), points, stroke=line.is_joined, dots_size=3)
    return _finish(chart, drawn.title)


def _draw_bars(drawn: Chart) -> Markup:
    bars = {_clip(name): value for name, value in drawn.bars.items() if math.isfinite(value)}
    shape = {"show_legend": False, "height": 60 + 26 * max(len(bars), 2)}
    chart = load_pygal().HorizontalBar(**_options(drawn.x, "") | shape)
    chart.x_labels = list(bars)[::-1]  # pygal draws from below
    chart.add(drawn.x, list(bars.values())[::-1])
    return _finish(chart, drawn.title)


def _list_points(line: Series, *, is_log: bool) -> list[dict[str, Any]]:
    """List the points that can be drawn, as pygal wants them."""
    labels = line.labels or [""] * len(line.points)
    return [
        {"value": (math.log10(x) if is_log else x, y), "label": _clip(label)}
        for (x, y), label in zip(line.points, labels, strict=True)
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not is_log)
    ][:MOST_POINTS]


def _clip(name: str) -> str:
    """Shorten a name, and replace the characters that XML does not allow."""
    shown = "".join(letter if letter.isprintable() else " " for letter in name[: LONGEST_LABEL + 1])
    return shown if len(shown) <= LONGEST_LABEL else f"{shown[: LONGEST_LABEL - 1]}…"


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


def _finish(chart: Any, title: str) -> Markup:
    """Render a chart without scripts, styles and tooltips. The name of a point becomes its title."""
    root = render(chart, is_dropped=_is_dropped)
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
    descriptions = dots.findall("desc")
    for desc in descriptions:
        dots.remove(desc)
    shape = dots.find("circle") if dots.find("circle") is not None else dots.find("rect")
    if shape is not None and descriptions:
        ET.SubElement(shape, "title").text = ": ".join(desc.text for desc in descriptions if desc.text)


def main() -> None:
    """Draw the chart on stdin."""
    fields = json.load(sys.stdin.buffer)
    lines = [Series(**line) for line in fields.pop("lines")]
    sys.stdout.buffer.write(draw_here(Chart(lines=lines, **fields)).encode())


if __name__ == "__main__":
    main()
