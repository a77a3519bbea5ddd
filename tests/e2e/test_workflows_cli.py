"""Workflows and the conductor, as a user has them: commands on the embedded pool, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import HANG_S

UNTRACED = pytest.mark.usefixtures("untraced")

RIPIENO = str(Path(sys.executable).parent / "ripieno")


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([RIPIENO, *arguments], capture_output=True, text=True, check=False, timeout=HANG_S)
    assert done.returncode == code, done.stderr
    return done


@UNTRACED
@pytest.mark.parametrize("workflow", ["verified", "cascade", "agreement", "vote", "best-of", "plan", "turns"])
def test_a_workflow_answers_and_lists_its_steps(workflow: str) -> None:
    check = '{"kind": "numeric", "answer": 42}'
    done = run("ask", "--workflow", workflow, "--check", check, "--explain", "What is 12 + 30?")
    assert "42" in done.stdout
    assert "step 1: " in done.stderr
    assert "$" in done.stderr
    if workflow in ("verified", "cascade", "best-of"):
        assert "step 1.check: numeric gives" in done.stderr
    told = run("explain", "last").stdout
    assert "step 1: " in told
    described = json.loads(run("explain", "last", "--json").stdout)
    assert described["steps"][0]["step"] == "1"


def test_an_invalid_workflow_is_refused_in_two_lines() -> None:
    assert "--check" in run("ask", "--check", "nothing", "--workflow", "verified", "x", code=2).stderr
    refused = run("ask", "--workflow", "debate", "x", code=2)
    assert "'debate' was removed: use 'vote' or 'plan'" in refused.stderr
    assert "pip install 'ripieno[lm]'" in run("conductor", "train", "--size", "lm", code=3).stderr
    assert "no trained conductor" in run("conductor", "evaluate", code=1).stderr


@UNTRACED
def test_the_bundled_conductor_plans_and_a_trained_one_takes_over() -> None:
    planned = json.loads(run("conductor", "plan", "What is 12 + 30?", "--json").stdout)
    assert planned["workflow"] == "plan"
    assert planned["plan"][0]["op"] in ("solve", "extract")
    assert planned["plan_usd"] == 0.0
    author = next(why for why in planned["why"] if "wrote a plan" in why).split()[0]
    trained = json.loads(run("conductor", "train", "--short", "--json").stdout)
    assert [each["name"] for each in trained["trained"]] == ["conductor", "one-step router"]
    again = json.loads(run("conductor", "plan", "What is 12 + 30?", "--json").stdout)
    assert author not in " ".join(again["why"])
    table = json.loads(run("conductor", "evaluate", "--pools", "6", "--tasks", "1", "--json").stdout)
    names = [row["name"] for row in table["rows"]]
    for name in (
        "untrained",
        "conductor",
        "one-step router",
        "best single",
        "best of n, equal money",
        "search ceiling",
    ):
        assert name in names
    assert all(row["parsed"] == 1.0 for row in table["rows"])
    assert table["verdict"]
    assert list(Path(".ripieno/conductor").glob("conductor-0.svg"))


@UNTRACED
def test_a_killed_training_resumes() -> None:
    command = [RIPIENO, "conductor", "train", "--short"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        progress = Path(".ripieno/conductor/conductor-0/progress.json")
        while process.poll() is None and not progress.exists():
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
        os.killpg(process.pid, signal.SIGKILL)
    began = json.loads(progress.read_text())["progress"]
    run("conductor", "train", "--short")
    ended = json.loads(progress.read_text())["progress"]
    assert ended["stage"] == "polish"
    assert began["stage"] in ("search", "teach", "reinforce")


def test_the_audit_reports_the_headroom_without_training() -> None:
    found = json.loads(run("conductor", "audit", "--pools", "3", "--tasks", "12", "--json").stdout)
    assert found["verdict"] in ("train", "do not train")
    assert found["ladder"]["search ceiling"]["right"] > found["ladder"]["random worker"]["right"]
