"""Drawing: what pages and picture files share of the chart library."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree as ET


def load_pygal() -> Any:
    """Import pygal without its import hook for maps, about which Python warns."""
    import pygal

    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
    return pygal


def name_powers(logarithms: Sequence[float]) -> list[dict[str, object]]:
    """Label the powers of ten in US dollars on an axis of logarithms."""
    if not logarithms:
        return []
    low, high = math.floor(min(logarithms)), math.ceil(max(logarithms))
    return [{"value": power, "label": f"${10.0**power:.0e}"} for power in range(low, max(high, low + 1) + 1)]


def render(chart: Any, *, is_dropped: Callable[[ET.Element], bool]) -> ET.Element:
    """Render a chart without comments and without some elements."""
    root: ET.Element = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or is_dropped(child):
                parent.remove(child)
    return root
