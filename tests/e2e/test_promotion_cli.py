"""Training again, staged promotion, audit, publishing and criticality, as a user runs them."""

import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.conftest import HANG_S
from tests.e2e.sums import write_sums
from tests.e2e.test_cli import RIPIENO, read_json, run
from tests.integration.test_app import make_outcomes
from tests.learning.test_criticality import make_data


@pytest.fixture(autouse=True)
def workplace(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of two callables, one of which knows apples only, and graded tasks."""
    monkeypatch.setenv("PYTHONPATH", str(own_folder))
    write_sums(160)


def test_a_checkpoint_is_trained_shadowed_tried_and_rolled_back(tmp_path: Path) -> None:
    run("profile", "tasks.jsonl", "--name", "sums")
    first = read_json("train", "--policy", "lowrank")
    assert isinstance(first, dict)
    assert first["fate"].startswith("promoted")
    idle = run("train", "--least-new", "5")
    assert "too little is new" in idle.stderr
    second = run("train", "--policy", "kinds")
    assert re.search(r"against lowrank-\w+ it (gains|loses)", second.stderr)
    versions = read_json("policy", "list")
    assert isinstance(versions, list)
    lowrank, kinds = (item["checkpoint"] for item in versions)
    assert [item["in_traffic"] for item in versions] == [False, True]
    same = run("policy", "shadow", lowrank, code=5)
    assert "replay: gains" in same.stderr
    assert "0 judged tasks of traffic are too few for a veto" in same.stderr
    assert "is not promoted: not proven better" in same.stderr
    assert "compare with" in run("policy", "shadow", kinds, code=1).stderr
    weak = make_outcomes(tmp_path / "set", models=("good", "bad"))
    worse = read_json("train", "--data", str(weak), "--out", ".ripieno/checkpoints")
    assert isinstance(worse, dict)
    run("policy", "promote", worse["checkpoint"])
    better = run("policy", "shadow", lowrank, "--tasks", "tasks.jsonl")
    assert "shadow: proven better" in better.stderr
    assert "decides 5% of the tasks" in better.stderr
    assert "canary" in run("policy", "list").stdout
    assert "decides again" in run("policy", "rollback").stderr
    assert "canary" not in run("policy", "list").stdout
    staged = run("ledger", "verify").stdout
    assert "runs" in staged


def test_a_new_worker_is_added_probed_and_published() -> None:
    run("profile", "tasks.jsonl", "--name", "sums")
    run("train", "--policy", "heads")
    before = read_json("route", "How many pears are 7 and 9 ?")
    assert isinstance(before, dict)
    run("pool", "add", "good-two", "--provider", "tools", "--model", "answers:good", "--usd-per-cpu-s", "0",
        "--privacy", "local")  # fmt: skip
    after = read_json("route", "How many pears are 7 and 9 ?")
    assert isinstance(after, dict)
    old = {e["worker"]: e["score"] for e in before["estimates"]}
    new = {e["worker"]: e["score"] for e in after["estimates"]}
    assert {worker: new[worker] for worker in old} == old, "old logits are bit-equal"
    assert next(e["standing"] for e in after["estimates"] if e["worker"] == "good-two") == "masked"
    probed = read_json("pool", "probe", "good-two", "--budget", "40")
    assert isinstance(probed, dict)
    assert probed["standing"] == "free"
    assert probed["quality"] > 0.8
    run("pool", "mute", "good")
    chosen = read_json("route", "How many pears are 7 and 9 ?")
    assert isinstance(chosen, dict)
    assert chosen["worker"] == "good-two", "nothing was trained anew"
    assert chosen["predictor"].startswith(before["predictor"])
    refused = run("publish", "out", "--dataset", "sums", "--licence", "mit", code=3)
    assert "the source 'sums' of 'sums' has no licence" in refused.stderr
    run("publish", "out", "--dataset", "sums", "--licence", "mit", "--source", "sums=cc0-1.0")
    page = Path("out/README.md").read_text()
    assert page.startswith("---\nlicense: mit\n")
    assert "| sums | cc0-1.0 |" in page
    assert {path.name for path in Path("out").iterdir()} == {
        "README.md", "prompts.parquet", "outcomes.parquet", "models.parquet",
    }  # fmt: skip
    assert read_json("evaluate", "--data", "out", "--policy", "ridge")
    assert (
        "is not empty"
        in run("publish", "out", "--dataset", "sums", "--licence", "mit", "--source", "sums=cc0-1.0", code=3).stderr
    )
    run("publish", "model", "--checkpoint", before["predictor"], "--licence", "apache-2.0")
    assert "library_name: ripieno" in Path("model/README.md").read_text()
    run("publish", "other", "--licence", "mit", code=2)
    run("publish", "other", "--dataset", "sums", "--licence", "mit", "--source", "sums", code=2)


def test_decisions_are_audited() -> None:
    assert "no decision is recorded yet" in run("audit", code=1).stderr
    run("ask", "How many pears are 7 and 9 ?")
    shown = run("audit")
    assert "1 decisions, 0 judged" in shown.stdout
    assert "not enough evidence" in shown.stdout
    found = read_json("audit", "--gate")
    assert isinstance(found, dict)
    assert (found["decisions"], found["flags"], found["drifts"]) == (1, [], [])


def test_a_trained_criticality_fills_in_unstated_ones(tmp_path: Path) -> None:
    make_data(tmp_path / "grave")
    told = run("train", "--criticality", "--data", "grave")
    assert re.search(r"60 prompts; on unseen ones the model explains \d+% of the variance of mission", told.stdout)
    guessed = read_json("route", "The patient in ward 7 has chest pain, which dose of the drug is safe now?")
    stated = read_json("route", "Tell me a joke about penguins", "--mission", "9")
    assert isinstance(guessed, dict)
    assert isinstance(stated, dict)
    assert guessed["objective"]["mission_criticality"] > 6
    assert stated["objective"]["mission_criticality"] == 9
    assert stated["objective"]["time_criticality"] < 5
    run("train", "--criticality", code=2)


def test_evaluation_leaves_out_whole_kinds() -> None:
    run("profile", "tasks.jsonl", "--name", "sums")
    run("ledger", "export", "copy", "--dataset", "sums")
    few = run("evaluate", "--data", "copy", "--leave-dataset-out", code=2)
    assert "fewer than two kinds have 20 held-out tasks" in few.stderr


def test_watching_retrains_until_interrupted() -> None:
    run("profile", "tasks.jsonl", "--name", "sums")
    command = [RIPIENO, "train", "--policy", "lowrank", "--watch", "--every", "0.05", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        told: list[str] = []
        while sum('"fate"' in line for line in told) < 2:
            told.append(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=HANG_S)
        assert watching.returncode == 130
    assert sum("promoted: it decides" in line for line in told) == 2
    assert "in traffic" in run("policy", "list").stdout
