"""Pictures of a report: cost against quality, stated against met probability."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ripieno.evaluate.report import Field, Report, bin_calibration

MOST_SHOWN = 16
"""Workers in a confusion: more cannot be read."""

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_curve(report: Report, held_out: Field, path: Path) -> None:
    """Draw the cost-quality curves and every single worker into a PNG."""
    figure, axes = _start()
    costs, qualities = held_out.cost_usd.mean(axis=0), held_out.quality.mean(axis=0)
    axes.scatter(costs, qualities, color="0.45", s=18, zorder=3, label="single workers")
    best = report.workers.index(report.best_single)
    axes.scatter(
        [costs[best]], [qualities[best]], color="C3", s=50, zorder=4, label=f"best single: {report.best_single}"
    )
    for name, curve in report.curves.items():
        style = "-" if name == "router" else "--"
        right = np.append(curve.cost_usd, max(costs.max(), curve.cost_usd[-1]))
        axes.plot(right, np.append(curve.quality, curve.quality[-1]), style, marker=".", label=name)
    oracle = report.line("oracle")
    axes.axhline(oracle.quality.mean, color="0.7", linestyle=":", label=f"oracle ({oracle.note})")
    if (costs > 0).all():
        axes.set_xscale("log")
    axes.set(xlabel="mean cost of a task, USD", ylabel="mean quality", title=f"{report.name}: cost and quality")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def plot_calibration(probabilities: np.ndarray, held_out: Field, path: Path, *, name: str) -> None:
    """Draw stated probability against met quality, in bins of equal count, into a PNG."""
    figure, axes = _start()
    stated, met = zip(*bin_calibration(probabilities, held_out.quality), strict=True)
    axes.plot([0, 1], [0, 1], "--", color="0.6", label="perfect")
    axes.plot(stated, met, "o-", label="router")
    axes.set(xlabel="predicted quality", ylabel="measured quality", title=f"{name}: calibration on held-out tasks")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def plot_confusion(chosen: np.ndarray, held_out: Field, path: Path, *, name: str) -> None:
    """Draw which worker was taken where which one was best, into a PNG.

    Args:
        chosen: column of the worker that was taken on each task, shape (t,).
        held_out: the tasks; ties for best are shared evenly.
        path: file to write.
        name: of the data set.
    """
    best = held_out.quality == held_out.quality.max(axis=1, keepdims=True)
    shares = best / best.sum(axis=1, keepdims=True)
    taken = np.eye(len(held_out.workers))[chosen]
    table = shares.T @ taken  # (m, m): rows best, columns taken
    shown = np.argsort(-(table.sum(axis=0) + table.sum(axis=1)))[:MOST_SHOWN]
    figure, axes = _start()
    image = axes.imshow(table[np.ix_(shown, shown)], cmap="Blues")
    figure.colorbar(image, ax=axes, label="tasks")
    names = [held_out.workers[index][:24] for index in shown]
    axes.set_xticks(range(len(shown)), names, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(shown)), names, fontsize=7)
    axes.set(xlabel="taken", ylabel="best (ties shared)", title=f"{name}: who was taken where who was best")
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _start() -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
