"""A report as one HTML page, pictures inside: to look at, to send on."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ripieno.evaluate.report import Line, Report

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #d7dce2; }
th:first-child, td:first-child, td:last-child { text-align: left; }
tr.router { background: #eaf3ff; font-weight: 600; }
img { max-width: 100%; }
@media (prefers-color-scheme: dark) {
  body { background: #14171b; color: #e4e7eb; } tr.router { background: #1f3350; } img { background: #fff; }
}
"""
_COLUMNS = ("policy", "quality", "against best single, 95 %", "cost, USD", "utility", "gap closed", "note")


def render_page(report: Report, pictures: Mapping[str, Path]) -> str:
    """Render a report; every text of the data is escaped, nothing is loaded from elsewhere.

    Args:
        report: the finished benchmark.
        pictures: SVG files by what they show.
    """
    title = escape(f"{report.name}: {report.tasks} held-out tasks, {len(report.workers)} workers")
    figures = "".join(
        f'<figure><img alt="{escape(name)}" src="data:image/svg+xml;base64,{_inline(path)}"></figure>'
        for name, path in pictures.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>{escape(report.verdict)}</p>"
        f"{_render_table(report.lines)}{_render_facts(report)}{figures}</body></html>\n"
    )


def _render_table(lines: Sequence[Line]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in _COLUMNS)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_render_line, lines))}</tbody></table>"


def _render_line(line: Line) -> str:
    cells = (
        line.name,
        f"{line.quality.mean:.4f}",
        f"{line.gain.mean:+.4f} [{line.gain.low:+.4f}, {line.gain.high:+.4f}]",
        "-" if line.cost_usd is None else f"{line.cost_usd:.3g}",
        f"{line.utility.mean:+.4f}",
        "-" if line.gap_closed is None else f"{line.gap_closed:.0%}",
        line.note,
    )
    kind = ' class="router"' if line.name == "router" else ""
    return f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _render_facts(report: Report) -> str:
    facts = {
        "calibration error": report.calibration_error,
        "80 % intervals cover group means": report.coverage,
        "cost-quality area": report.area,
        "area of the best mix of single workers": report.area_of_mix,
        "saved at the best single worker's quality": report.saved_at_equal_quality,
        "performance gap recovered": report.apgr,
    }
    rows = "".join(f"<li>{escape(name)}: {value:.4f}</li>" for name, value in facts.items() if value is not None)
    return f"<ul>{rows}</ul>"


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
