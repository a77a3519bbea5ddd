"""The word list of `make check`."""

from pathlib import Path

import pytest
from scripts.check_words import EVERYWHERE, PLAIN, find_words, list_files, main


def test_a_finding_names_the_line_the_word_and_a_better_one(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""A module.\n\nNobody reads it.\n"""\n\nx = 1  # begun anew\nlog(f"{x} is told")\n')
    assert [finding.partition(": ") for finding in find_words(path, PLAIN)] == [
        (f"{path}:3", ": ", f"'Nobody' -> {PLAIN['(nobody|somebody|anybody|whoever)']}"),
        (f"{path}:6", ": ", "'anew' -> again"),
        (f"{path}:6", ": ", "'begun' -> started"),
        (f"{path}:7", ": ", "'is told' -> is recorded, is shown, gets"),
    ]


def test_identifiers_and_parts_of_words_are_no_findings(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("purse = nobody = 1\ntext = 'thusly dearth'\n")
    assert list(find_words(path, EVERYWHERE | PLAIN)) == []


def test_pages_and_templates_are_read_whole(tmp_path: Path) -> None:
    page, script = tmp_path / "page.md", tmp_path / "script.sh"
    page.write_text("# Title\n\nThe `purse` is empty.\n")
    script.write_text("purse\n")
    assert list_files(tmp_path) == [page]
    assert list(find_words(page, EVERYWHERE)) == [f"{page}:3: 'purse' -> budget"]


def test_the_tree_has_no_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().out
