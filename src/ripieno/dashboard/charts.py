"""Charts as SVG in the page: drawn by pygal in a process of its own, coloured by the page's style sheet, no script.

Run as a script, this module draws the chart that it reads on stdin, and answers on stdout.
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

WIDTH, HEIGHT = 640, 320
MOST_LINES = 8
"""Series of one chart: more colours cannot be told apart."""

MOST_POINTS = 2_000
"""Points of one series."""
LONGEST_LABEL = 40
"""Characters of a name in a chart. Labels that leave its titles no width have pygal wrap them for ever."""
DRAWING_S = 20.0
"""That drawing may take; a page without its chart is better than none."""
LARGEST = 1 << 20
"""Bytes of a drawn chart."""
KEPT = 64
"""Charts that are kept as drawn: most are asked for again unchanged."""

log = logging.getLogger(__name__)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series."""

    name: str
    points: Points
    is_joined: bool = True
    """Whether its points are joined by a line."""
    labels: Sequence[str] = ()
    """What each point is, where that is not plain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What is to be drawn."""

    title: str
    """What the chart shows, for readers who do not see it."""
    x: str
    """Name of the horizontal axis."""
    y: str = ""
    """Name of the vertical one."""
    lines: Sequence[Series] = ()
    bars: Mapping[str, float] = field(default_factory=dict)
    """In place of lines: one bar for each name, the first on top."""
    has_log_x: bool = False
    """Whether the horizontal axis is one of powers of ten; points at or below 0 are left out."""


_drawn: "OrderedDict[bytes, Markup]" = OrderedDict()


async def draw(chart: Chart) -> Markup | None:
    """A chart as markup, drawn in another process within its time; None where that could not be done."""
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
            said, _ = await child.communicate(packed)
    except TimeoutError:
        log.warning("a chart was not drawn within %g s: %s", DRAWING_S, chart.title)
        return None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode or len(said) > LARGEST:
        log.warning("a chart could not be drawn: %s", chart.title)
        return None
    made = _drawn[packed] = Markup(said.decode())  # noqa: S704  # built element by element, and escaped by that
    if len(_drawn) > KEPT:
        _drawn.popitem(last=False)
    return made


def draw_here(chart: Chart) -> Markup:
    """A chart as markup, drawn in this process."""
    return _draw_bars(chart) if chart.bars else _draw_lines(chart)


def _draw_lines(asked: Chart) -> Markup:
    pygal = _load_pygal()
    lines = [_bound(line) for line in asked.lines[:MOST_LINES]]
    shown = [_take_log(line) for line in lines] if asked.has_log_x else lines
    chart = pygal.XY(**_options(asked.x, asked.y))
    if asked.has_log_x:
        chart.x_labels = _name_powers([px for line in shown for px, _ in line.points])
    for line in shown:
        labels = line.labels or [""] * len(line.points)
        points = [{"value": point, "label": label} for point, label in zip(line.points, labels, strict=True)]
        chart.add(line.name, points, stroke=line.is_joined, dots_size=3)
    return _finish(chart, asked.title)


def _draw_bars(asked: Chart) -> Markup:
    pygal = _load_pygal()
    bars = {_clip(name): value for name, value in asked.bars.items() if math.isfinite(value)}
    chart = pygal.HorizontalBar(**_options(asked.x, "") | {"show_legend": False, "height": 60 + 26 * max(len(bars), 2)})
    chart.x_labels = list(bars)[::-1]  # it draws from below
    chart.add(asked.x, list(bars.values())[::-1])
    return _finish(chart, asked.title)


def _bound(line: Series) -> Series:
    """A series with names that fit, and points that can be drawn."""
    labels = [_clip(label) for label in line.labels] if line.labels else [""] * len(line.points)
    kept = [(point, label) for point, label in zip(line.points, labels, strict=True) if all(map(math.isfinite, point))][
        :MOST_POINTS
    ]
    return Series(
        name=_clip(line.name),
        points=[(px, py) for (px, py), _ in kept],
        is_joined=line.is_joined,
        labels=[label for _, label in kept] if line.labels else (),
    )


def _clip(name: str) -> str:
    """A name that leaves room for the chart, without what XML cannot hold."""
    shown = "".join(letter if letter.isprintable() else " " for letter in name[: LONGEST_LABEL + 1])
    return shown if len(shown) <= LONGEST_LABEL else f"{shown[: LONGEST_LABEL - 1]}…"


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


def _take_log(line: Series) -> Series:
    kept = [
        ((math.log10(px), py), label)
        for (px, py), label in zip(line.points, line.labels or [""] * len(line.points), strict=True)
        if px > 0
    ]
    return Series(
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


def main() -> None:
    """Draw what stdin asks for."""
    told = json.load(sys.stdin.buffer)
    lines = [Series(**line) for line in told.pop("lines")]
    sys.stdout.buffer.write(draw_here(Chart(lines=lines, **told)).encode())


if __name__ == "__main__":
    main()
