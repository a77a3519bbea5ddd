"""Reports: one value, written the same on the command line, in JSON and on pages."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from tests.calls import make_call
from tests.unit.test_evaluate import make_field

from ripieno.cli.output import print_found
from ripieno.dashboard.page import render_file
from ripieno.domain import Objective
from ripieno.domain.report import (
    Column,
    Counted,
    Evidence,
    Interval,
    Kind,
    Report,
    format_seconds,
    list_texts,
    money,
    number,
    read_value,
    seconds,
    text,
)
from ripieno.domain.run import Failure
from ripieno.evaluate import BenchmarkReport, Table
from ripieno.evaluate.observed import LEAST_EVIDENCE, Observed
from ripieno.evaluate.questions import LEAST_EDGES, answer
from ripieno.evaluate.tables import summarise_traffic, tabulate_traffic
from ripieno.route.utility import Scales

SHARE = Interval(mean=0.5, low=0.25, high=0.75)


@pytest.mark.parametrize(
    ("column", "row", "written"),
    [
        (text("a"), {"a": "x"}, "x"),
        (text("a"), {"a": None}, "-"),
        (text("a"), {"a": 7}, "7"),
        (text("a"), {"a": True}, "yes"),
        (text("a"), {"a": False}, "no"),
        (number("a"), {"a": 1234567}, "1,234,567"),
        (number("a"), {"a": float("nan")}, "-"),
        (number("a", spec="+.0%"), {"a": 0.126}, "+13%"),
        (number("a", spec=".2f"), {"a": SHARE}, "0.50 [0.25, 0.75]"),
        (number("a"), {"a": "never"}, "never"),
        (number("a", beside="n"), {"a": 3, "n": 10}, "3 of 10"),
        (number("a", spec=".2f", beside="n", least=20), {"a": 0.5, "n": 20}, "0.50 of 20"),
        (number("a", spec=".2f", beside="n", least=20), {"a": 0.5, "n": 19}, "19 of 20"),
        (number("a", spec=".2f", beside="n", least=20), {"a": 0.5, "n": 0}, "-"),
        (number("a", spec=".1f", least=5), {"a": Counted(count=8, share=SHARE)}, "0.5 [0.2, 0.8] of 8"),
        (number("a", spec=".1f", least=5), {"a": Counted(count=4, share=None)}, "4 of 5"),
        (money("a"), {"a": None}, "unknown"),
        (money("a"), {"a": 0.0}, "$0"),
        (money("a", beside="n"), {"a": 0.1234, "n": 2}, "at least $0.123, 2 unknown"),
        (seconds("a"), {"a": 0.0125}, "12.5 ms"),
        (seconds("a"), {"a": 62.5}, "62.50 s"),
        (Column(name="a", kind=Kind.MOMENT), {"a": 86400.0}, "1970-01-02 00:00:00"),
        (Column(name="a", kind=Kind.MOMENT), {"a": None}, "-"),
    ],
)
def test_a_value_is_written_by_its_kind_and_its_evidence(column: Column, row: dict[str, object], written: str) -> None:
    assert column.write(row) == written


def test_headings_name_the_unit_where_values_do_not() -> None:
    assert [column.heading for column in (text("a"), text("a", "b"), number("a", "b", unit="USD"))] == [
        "a", "b", "b, USD"
    ]  # fmt: skip
    assert format_seconds(None) == "-"


def test_a_path_leads_through_keys_places_and_attributes() -> None:
    row = {"counts": (Counted(count=1, share=None), Counted(count=2, share=SHARE))}
    assert read_value(row, "counts.1.share.low") == 0.25
    assert read_value([3, 4], "1") == 4


def test_an_empty_table_says_what_is_missing_or_what_it_means() -> None:
    short, enough = Evidence(n=3, least=50), Evidence(n=50, least=50)
    said = [Report(title="t", evidence=each, empty="nobody").absence for each in (None, short, enough)]
    assert said == ["nobody", "not enough evidence: 3 of 50 judged", "nobody"]


def test_one_report_reads_the_same_as_table_json_and_page(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(make_field(), best_single=0, objective=Objective(preference=1.0), scales=Scales())
    lines = table.score([table.uniform(), table.always(1, name="router"), table.oracle()])
    found = BenchmarkReport(
        name="set", tasks=4, train_tasks=9, workers=("a", "b"), best_single="a", policies=lines,
        verdict="<b>near the ceiling</b>", calibration_error=0.125,
    )  # fmt: skip
    report = found.tabulate()
    print_found(found, report, as_json=False)
    printed = capsys.readouterr().out
    page = render_file(report, {})
    assert "<b>" not in page
    told = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("&lt;", "<").replace("&gt;", ">")
    for shown in (*(cell for row in report.write_rows() for cell in row), *report.notes):
        assert shown in printed
        assert shown in told
    print_found(found, report, as_json=True)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["coverage"] == {"quality": None, "cost": None, "latency": None}
    for row, line in zip(document["policies"], lines, strict=True):
        assert list(row) == ["name", "quality", "gain", "cost_usd", "latency_s", "utility", "utility_gain",
                             "gap_closed", "note"]  # fmt: skip
        assert row["gain"] == {"mean": line.gain.mean, "low": line.gain.low, "high": line.gain.high}


def test_an_empty_table_is_one_line_and_texts_need_no_title(capsys: pytest.CaptureFixture[str]) -> None:
    print_found([], Report(title="tools", columns=(text("tool"),)), as_json=False)
    rows = [{"key": "[bold]", "value": "2"}]
    print_found(rows, list_texts(rows, "key", "value"), as_json=False)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["tools: none", "key     value", "[bold]  2"]


def fall_back(place: int, *, is_judged: bool) -> Observed:
    calls = (
        make_call("a", failure=Failure.SERVER_ERROR, tokens=1, cost_usd=0.0),
        make_call("b", tokens=1, cost_usd=0.0),
    )
    return Observed(
        kind="k", key=None, worker="a", propensity=1.0, expected={}, calls=calls, latency_s=1.0, is_private=False,
        at=float(place), author="b", quality=1.0 if is_judged else None,
    )  # fmt: skip


def test_each_question_states_the_evidence_that_it_needs() -> None:
    found = answer([fall_back(place, is_judged=place < 15) for place in range(LEAST_EDGES)])
    tables = {report.title: report for report in tabulate_traffic(found)}
    fallbacks = tables["fallbacks by what is accepted in the end"]
    (row,) = fallbacks.write_rows()
    assert (fallbacks.columns[5].heading, row[5]) == ("accepted", f"15 of {LEAST_EDGES}")
    workers = tables["workers"]
    assert (workers.columns[6].heading, workers.write_rows()[0][6]) == ("accepted", f"15 of {LEAST_EVIDENCE}")
    assert tables["what should move to this machine"].absence == "not enough evidence: 15 of 50 judged"
    assert tables["good enough workers for a step"].absence == "no workflow of several steps was run"
    assert summarise_traffic(found).startswith("20 decisions, 15 judged")
    never = replace(found.fallbacks[0], accepted=Interval(mean=0.0, low=0.0, high=0.05))
    assert never.recovery == "never"
