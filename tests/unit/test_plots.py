"""Pictures of a report: whole SVG files that load and run nothing."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from tests.unit.test_evaluate import COST, QUALITY, make_field

from ripieno.evaluate import Field, Table
from ripieno.evaluate.benchmark import BEST_QUALITY
from ripieno.evaluate.curve import Curve, sweep_curve
from ripieno.evaluate.plots import plot_calibration, plot_confusion, plot_course, plot_curve
from ripieno.evaluate.report import BenchmarkReport
from ripieno.route.utility import Scales

SVG = "{http://www.w3.org/2000/svg}"


def read(path: Path) -> tuple[str, ET.Element]:
    """Texts and root of a picture."""
    source = path.read_text()
    assert "<script" not in source
    assert not re.search(r"(href|src)=|@import|url\(", source), "nothing is loaded from elsewhere"
    root = ET.fromstring(source)
    assert root.tag == f"{SVG}svg"
    return " ".join(root.itertext()), root


def make_report(field: Field) -> tuple[BenchmarkReport, dict[str, Curve]]:
    table = Table(field, best_single=0, objective=BEST_QUALITY, scales=Scales())
    lines = table.score([table.always(0, name="best single"), table.oracle()])
    curves = {name: sweep_curve(QUALITY, COST, field.quality, field.cost_usd) for name in ("router", "knn <&>")}
    report = BenchmarkReport(
        name="set <1>", tasks=4, train_tasks=4, workers=("a", "b"), best_single="a", policies=tuple(lines),
        verdict="",
    )  # fmt: skip
    return report, curves


@pytest.mark.parametrize("cheapest", [0.1, 0.0], ids=["powers of ten", "a free worker"])
def test_cost_and_quality_are_drawn_with_every_worker(tmp_path: Path, cheapest: float) -> None:
    costs = np.array([[cheapest, 0.2]] * 4)
    field = Field(
        workers=("a", "b"), quality=QUALITY, cost_usd=costs, latency_s=costs, kinds=("x",) * 4, groups=np.arange(4)
    )
    plot_curve(*make_report(field), field, tmp_path / "curve.svg")
    told, _ = read(tmp_path / "curve.svg")
    for name in ("set <1>: cost and quality", "single workers", "best single: a", "router", "knn <&>", "oracle"):
        assert name in told
    assert ("$1e-01" in told) is (cheapest > 0)


def test_calibration_and_confusion_are_drawn(tmp_path: Path) -> None:
    field = make_field()
    plot_calibration(np.linspace(0.1, 0.9, 8).reshape(4, 2), field, tmp_path / "calibration.svg", name="set")
    assert "calibration on held-out tasks" in read(tmp_path / "calibration.svg")[0]
    plot_confusion(np.array([0, 0, 0, 1]), field, tmp_path / "confusion.svg", name="set")
    told, root = read(tmp_path / "confusion.svg")
    assert "taken: a" in told
    assert "taken: b" in told
    bars = [part for part in root.iter(f"{SVG}g") if part.get("class") == "bar"]
    assert len(bars) == 4, "two workers taken, for each of two that were best"


def test_a_training_is_drawn_with_its_stages(tmp_path: Path) -> None:
    lines = {"right": [0.1, 0.4, 0.6], "reward": [0.0, 0.2, 0.5]}
    plot_course(tmp_path / "course.svg", lines, title="tiny", stages=[2], x="each point is 10 steps")
    told, _ = read(tmp_path / "course.svg")
    for name in ("tiny", "right", "reward", "stage from 2", "each point is 10 steps"):
        assert name in told
