"""Pictures of a report as SVG files: cost and quality, calibration, and choices."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from ripieno.drawing import load_pygal, name_powers, render
from ripieno.evaluate.curve import Curve
from ripieno.evaluate.report import BenchmarkReport, Field, bin_calibration

MOST_SHOWN = 16
"""Workers in a confusion chart. More would be unreadable."""
WIDTH, HEIGHT = 900, 540
DASHED = {"dasharray": "3, 6"}
PALETTE = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#332288"),
    *("#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499"),
)
"""Colours that readers with a colour vision deficiency can tell apart (Okabe & Ito 2008; Tol 2021)."""

Points = Sequence[tuple[float, float]]


def plot_curve(report: BenchmarkReport, curves: Mapping[str, Curve], held_out: Field, path: Path) -> None:
    """Draw the cost-quality curves and every single worker into an SVG file."""
    costs, qualities = held_out.cost_usd.mean(axis=0), held_out.quality.mean(axis=0)
    oracle = report.line("oracle")
    is_log = bool((costs > 0).all())
    singles = list(zip(costs.tolist(), qualities.tolist(), strict=True))
    extended = {name: _extend(curve.cost_usd, curve.quality, costs.max()) for name, curve in curves.items()}
    places = [x for points in (singles, *extended.values()) for x, _ in points if not is_log or x > 0]
    chart = _start("XY", f"{report.name}: cost and quality", x="mean cost of a task, USD", y="mean quality")
    if is_log:
        chart.x_labels = name_powers(list(map(math.log10, places)))
    labelled = [{"value": place, "label": worker} for place, worker in zip(singles, held_out.workers, strict=True)]
    chart.add("single workers", _place(labelled, is_log=is_log), stroke=False, dots_size=4)
    best = labelled[report.workers.index(report.best_single)]
    chart.add(f"best single: {report.best_single}", _place([best], is_log=is_log), stroke=False, dots_size=7)
    for name, points in extended.items():
        shown = _place([{"value": point, "label": name} for point in points], is_log=is_log)
        chart.add(name, shown, dots_size=2, stroke_style={} if name == "router" else DASHED)
    ends = [{"value": (place, oracle.quality.mean), "label": "oracle"} for place in (min(places), max(places))]
    chart.add(f"oracle ({oracle.note})", _place(ends, is_log=is_log), show_dots=False, stroke_style=DASHED)
    _save(chart, path)


def plot_calibration(probabilities: np.ndarray, held_out: Field, path: Path, *, name: str) -> None:
    """Draw stated probability against measured quality, in bins of equal count, into an SVG file."""
    title = f"{name}: calibration on held-out tasks"
    chart = _start("XY", title, x="predicted quality", y="measured quality")
    chart.add("perfect", [(0.0, 0.0), (1.0, 1.0)], show_dots=False, stroke_style=DASHED)
    chart.add("router", bin_calibration(probabilities, held_out.quality), dots_size=4)
    _save(chart, path)


def plot_confusion(chosen: np.ndarray, held_out: Field, path: Path, *, name: str) -> None:
    """Draw how often each worker was chosen, with one bar for each best worker, into an SVG file.

    `chosen` is the column of the chosen worker of each task, shape (t,). Ties for best are shared evenly.
    """
    best = held_out.quality == held_out.quality.max(axis=1, keepdims=True)
    shares = best / best.sum(axis=1, keepdims=True)
    taken = np.eye(len(held_out.workers))[chosen]
    table = shares.T @ taken  # (m, m): rows best, columns taken
    shown = np.argsort(-(table.sum(axis=0) + table.sum(axis=1)))[:MOST_SHOWN]
    title = f"{name}: which worker was taken where which was best"
    chart = _start("HorizontalStackedBar", title, x="tasks (ties for best are shared)", y="")
    chart.x_labels = [held_out.workers[index][:24] for index in shown]
    for column in shown:
        label = f"taken: {held_out.workers[column]}"
        chart.add(label, [{"value": float(table[row, column]), "label": label} for row in shown])
    _save(chart, path)


def plot_course(path: Path, lines: Mapping[str, Sequence[float]], *, title: str, stages: Sequence[int], x: str) -> None:
    """Draw the course of a training into an SVG file.

    `stages` lists the points at which a new stage begins, counted from 1.
    """
    chart = _start("XY", title, x=x, y="")
    for name, values in lines.items():
        chart.add(name, list(enumerate(map(float, values), start=1)), dots_size=2)
    known = [float(value) for values in lines.values() for value in values]
    for start in stages:
        ends = [(start, min(known)), (start, max(known))]
        chart.add(f"stage from {start}", ends, show_dots=False, stroke_style=DASHED)
    _save(chart, path)


def _start(kind: str, title: str, *, x: str, y: str) -> Any:
    pygal = load_pygal()
    from pygal.style import Style

    style = Style(background="#ffffff", plot_background="#ffffff", colors=PALETTE, title_font_size=16)
    return getattr(pygal, kind)(
        title=title,
        x_title=x or None,
        y_title=y or None,
        style=style,
        js=[],
        width=WIDTH,
        height=HEIGHT,
        legend_at_bottom=True,
        legend_at_bottom_columns=3,
        truncate_legend=40,
        pretty_print=False,
    )


def _save(chart: Any, path: Path) -> None:
    """Write the picture without scripts. It loads and runs nothing."""
    root = render(chart, is_dropped=lambda element: element.tag.rpartition("}")[2] == "script")
    path.write_text(ET.tostring(root, encoding="unicode"), encoding="utf-8")


def _extend(costs: np.ndarray, qualities: np.ndarray, right: float) -> Points:
    """Return the points of a curve, extended to the right end at its last quality."""
    end = max(float(right), float(costs[-1]))
    return [*zip(costs.tolist(), qualities.tolist(), strict=True), (end, float(qualities[-1]))]


def _place(points: Sequence[dict[str, Any]], *, is_log: bool) -> list[dict[str, Any]]:
    """Place points on the axis. A logarithmic axis leaves out points at or below 0."""
    if not is_log:
        return list(points)
    kept = [point for point in points if point["value"][0] > 0]
    return [point | {"value": (math.log10(point["value"][0]), point["value"][1])} for point in kept]
