"""The demo: the whole loop on the embedded pool, resumed when run again."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import HANG_S

pytestmark = pytest.mark.usefixtures("untraced")

RIPIENO = str(Path(sys.executable).with_name("ripieno"))
SMALL = ("demo", "--train-tasks", "8", "--test-tasks", "4")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RIPIENO, *arguments], capture_output=True, text=True, check=True, timeout=HANG_S)


def test_the_demo_runs_the_whole_loop_and_resumes(tmp_path: Path) -> None:
    first = run(*SMALL)
    for name in ("random", "best single", "first that answers", "keyword rule", "knn", "router", "oracle"):
        assert re.search(rf"^{name} ", first.stdout, re.MULTILINE), name
    assert "known from before" in first.stderr
    assert re.search(r"(near the ceiling|router-bound|pool-bound)", first.stdout)
    commands = re.findall(r"^  ripieno (.+)$", first.stdout, re.MULTILINE)
    assert len(commands) == 3
    home = tmp_path / ".ripieno" / "demo"
    for plot in ("calibration.svg", "cost-quality.svg"):
        assert (home / "plots" / plot).read_text().startswith("<svg")
    config = ("--config", str(home / "ripieno.toml"))
    told = run(*config, "explain", "last", "--replay")
    assert "the same decision" in told.stderr
    answer = json.loads(run(*config, "ask", "Solve 3x + 4 = 19 for x", "--json").stdout)
    assert answer["worker"].startswith("calc-")
    second = run(*SMALL)
    assert re.search(r"\b0 samples measured, \d+ known from before", second.stderr)
