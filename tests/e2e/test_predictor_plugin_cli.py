"""An installed predictor trains, learns, is probed, promoted and shown by the commands that users run."""

import json
import os
from pathlib import Path

import pytest
from tests.e2e.sums import POOL, write_sums
from tests.e2e.test_cli import read_json, run
from tests.integration.test_app import make_outcomes
from tests.integration.test_predictor_plugins import install_example

pytestmark = pytest.mark.usefixtures("untraced")

LATE = """
[workers.late]
provider = "tools"
model = "answers:good"
privacy = "local"
usd_per_cpu_s = 0
"""


@pytest.fixture(autouse=True)
def workplace(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of two callables, of which one knows apples only, graded tasks, and the plugin."""
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(own_folder), before))))
    install_example(own_folder)
    write_sums(80)


def test_a_plugin_predictor_is_trained_taught_probed_promoted_and_shown(tmp_path: Path) -> None:
    run("profile", "tasks.jsonl", "--name", "sums")
    first = read_json("train", "--policy", "nearest")
    assert isinstance(first, dict)
    assert first["fate"].startswith("promoted")
    version = first["checkpoint"]
    assert version.startswith("nearest-")
    listed = read_json("policy", "list")
    assert isinstance(listed, list)
    assert [(row["checkpoint"], row["in_traffic"]) for row in listed] == [(version, True)]
    asked = read_json("ask", "How many pears are 7 and 9 ?")
    assert isinstance(asked, dict)
    run("feedback", asked["decision"], "--quality", "1")
    taught = read_json("route", "How many pears are 7 and 9 ?")
    assert isinstance(taught, dict)
    assert taught["predictor"].startswith(f"{version}+"), "the outcome is folded in"
    Path("ripieno.toml").write_text(POOL + LATE)
    probed = read_json("pool", "probe", "late", "--budget", "12")
    assert isinstance(probed, dict)
    assert probed["probes"] == 12
    assert probed["quality"] > 0.5
    weak = make_outcomes(tmp_path / "set", models=("good", "bad"))
    worse = read_json("train", "--data", str(weak), "--policy", "stack", "--out", ".ripieno/checkpoints")
    assert isinstance(worse, dict)
    run("policy", "promote", worse["checkpoint"])
    shadowed = run("policy", "shadow", version, "--tasks", "tasks.jsonl")
    assert "shadow: proven better" in shadowed.stderr
    assert "decides 5% of the tasks" in shadowed.stderr
    assert "canary" in run("policy", "list").stdout
    audited = read_json("audit")
    assert isinstance(audited, dict)
    Path("mood").write_text("nan")
    refused = run("train", "--policy", "nearest", code=3)
    assert "the predictor 'nearest' of checkpoint 'untrained-nearest' failed" in refused.stderr
    assert len(json.loads(run("policy", "list", "--json").stdout)) == 2, "nothing was saved"
    assert "is not one of" in run("train", "--policy", "magic", code=2).stderr
