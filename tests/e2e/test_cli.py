"""The installed command, as a user has it."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.conftest import HANG_S
from tests.integration.test_app import make_outcomes

RIPIENO = str(Path(sys.executable).with_name("ripieno"))


def run(*arguments: str, code: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        [RIPIENO, *arguments], capture_output=True, text=True, check=False, input=stdin, timeout=HANG_S
    )
    assert found.returncode == code, f"{found.returncode}\n{found.stdout}\n{found.stderr}"
    assert "Traceback" not in found.stderr
    return found


def read_json(*arguments: str, code: int = 0) -> object:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def test_help_lists_every_command_and_opens_examples() -> None:
    top = run("--help").stdout
    for command in ("demo", "serve", "ask", "route", "explain", "feedback", "pool", "profile", "train", "evaluate",
                    "policy", "ledger", "config", "doctor"):  # fmt: skip
        assert f"  {command} " in top
        assert "Usage:" in run(command, "--help").stdout
    assert "ripieno demo" in top
    assert re.fullmatch(r"ripieno \d+\.\d+\.\d+\n", run("--version").stdout)


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from ripieno.cli import main
sys.argv = ["ripieno", "--help"]
try:
    main()
except SystemExit:
    pass
print(sorted(sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"'([a-z_]+)'", found.stdout.splitlines()[-1]))
    assert not loaded & {
        "numpy",
        "pydantic",
        "sqlalchemy",
        "sklearn",
        "aiohttp",
        "starlette",
        "rich",
        "pyarrow",
        "sympy",
    }


def test_a_task_is_routed_answered_explained_and_judged() -> None:
    asked = run("ask", "What is 12 + 30?", "--worker", "calc-quick", "--explain")
    assert asked.stdout == "42\n"
    assert "why: calc-quick is the worker that the request names" in asked.stderr
    told = run("explain", "last", "--replay")
    assert "what would change it:" in told.stdout
    assert "another worker, or `auto`, as the model of the request" in told.stdout
    assert "call: calc-quick answered" in told.stdout
    assert "the same decision" in told.stderr
    run("feedback", "last", "--quality", "0.5")
    explained = read_json("explain", "last")
    assert isinstance(explained, dict)
    assert explained["verdicts"] == [{"verifier": "user", "quality": 0.5}]
    assert explained["worker"] == "calc-quick"
    answered = read_json("ask", "What is 2 * 21?", "--worker", "calc-quick")
    assert isinstance(answered, dict)
    assert (answered["answer"], answered["worker"]) == ("42", "calc-quick")
    assert run("ask", "-", "--worker", "calc-quick", stdin="6 * 7").stdout == "42\n"


def test_route_decides_and_records_nothing() -> None:
    decided = read_json("route", "Convert 5 km to mi.", "--preset", "cheap")
    assert isinstance(decided, dict)
    assert {"worker", "why", "estimates", "masked", "propensity"} <= set(decided)
    shown = run("route", "Convert 5 km to mi.", "--explain", "--preference", "0.5")
    assert f"> {decided['worker']}" in shown.stdout
    verified = read_json("ledger", "verify")
    assert isinstance(verified, dict)
    assert verified["entries"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("ask", " "), 2, "the task is empty"),
        (("ask", "x", "--worker", "nobody"), 2, "no worker is called 'nobody'"),
        (("ask", "x", "--preference", "7"), 2, "--preference"),
        (("fly",), 2, "No such command 'fly'"),
        (("explain", "last"), 1, "no decision is recorded yet"),
        (("explain", "abc"), 1, "no decision is recorded under 'abc'"),
        (("--config", "none.toml", "ask", "x"), 3, "the configuration file 'none.toml' does not exist"),
        (("profile", "none.jsonl"), 2, "none.jsonl"),
        (("profile", "embedded", "--worker", "nobody"), 2, "no worker is called 'nobody'"),
        (("train",), 1, "the ledger holds no measured data set"),
        (("train", "--data", "none"), 2, "the file is missing"),
        (("evaluate", "--data", "none"), 2, "the file is missing"),
        (("ledger", "import", "none"), 2, "the file is missing"),
        (("ledger", "export", "out", "--dataset", "x"), 1, "no judged run of 'x'"),
        (("policy", "promote", "x"), 1, "there is no checkpoint 'x'"),
        (("policy", "rollback"), 1, "replaced no checkpoint"),
        (("pool", "mute", "nobody"), 2, "no worker is called 'nobody'"),
        (("serve", "--host", "0.0.0.0"), 3, "RIPIENO_GATEWAY__API_KEY"),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(arguments: tuple[str, ...], code: int, told: str) -> None:
    found = run(*arguments, code=code)
    assert told in found.stderr
    assert found.stdout == ""


def test_a_dead_provider_exits_with_four_and_a_corrupt_ledger_with_three(tmp_path: Path) -> None:
    Path("ripieno.toml").write_text(
        "[providers.far]\nkind = 'openai'\nbase_url = 'http://127.0.0.1:9/v1'\n[workers.far]\nprovider = 'far'\n"
    )
    assert "'far' cannot be reached" in run("ask", "x", code=4).stderr
    assert "FAILED" in run("pool", "check", code=4).stdout
    assert "cannot be reached" in run("doctor", code=4).stderr
    (tmp_path / ".ripieno" / "ledger.db").write_bytes(b"garbage" * 1000)
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (tmp_path / ".ripieno" / name).unlink(missing_ok=True)
    assert "is damaged" in run("ask", "x", code=3).stderr


def test_imported_outcomes_are_trained_on_evaluated_and_exported(tmp_path: Path) -> None:
    folder = make_outcomes(tmp_path / "outcomes")
    run("ledger", "import", str(folder), "--dry-run")
    imported = read_json("ledger", "import", str(folder))
    assert imported == [{"dataset": "outcomes", "outcomes": 80, "new": 80}]
    trained = read_json("train", "--data", str(folder))
    assert isinstance(trained, dict)
    assert trained["fate"] == "saved, not promoted: it is for other workers than this pool's"
    checkpoint = f".ripieno/checkpoints/{trained['checkpoint']}"
    shown = run("evaluate", "--data", str(folder), "--checkpoint", checkpoint, "--plots", "plots", "--gate",
                "--predictions", "predictions.parquet")  # fmt: skip
    assert "best single" in shown.stdout
    assert re.search(r"(pool-bound|router-bound|near the ceiling)", shown.stdout)
    for name in ("calibration", "cost-quality", "confusion"):
        assert ET.parse(f"plots/{name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    page = Path("plots/report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert "<td>best single</td>" in page
    assert not re.search(r"src=\"(?!data:)|<script|https?://", page), "nothing is loaded from elsewhere"
    import pyarrow.parquet as pq

    table = pq.read_table("predictions.parquet")
    assert table.column_names == ["prompt_id", "model_id", "score"]
    assert table.num_rows == 20
    report = read_json("evaluate", "--data", str(folder), "--preference", "0.5", "--policy", "ridge,factors,logistic")
    assert isinstance(report, dict)
    names = [policy["name"] for policy in report["policies"]]
    for needed in ("random", "cheapest", "majority label", "best single", "knn", "router", "oracle"):
        assert needed in names
    assert (
        "too few to leave one out"
        in run("evaluate", "--data", str(folder), "--leave-one-worker-out", "--probes", "0,5", code=2).stderr
    )
    assert "is not a list" in run("evaluate", "--data", str(folder), "--probes", "x", code=2).stderr
    assert "'magic' is none of" in run("evaluate", "--data", str(folder), "--policy", "magic", code=2).stderr
    run("ledger", "export", "copy", "--dataset", "outcomes")
    again = read_json("evaluate", "--data", "copy", "--preference", "0.5", "--policy", "ridge,factors,logistic")
    assert isinstance(again, dict)
    assert again["best_single"] == report["best_single"]
    assert "80 runs" in run("ledger", "verify").stdout
    assert "stack-" in run("policy", "list").stdout
    run("policy", "promote", str(trained["checkpoint"]), code=3)


def test_pool_commands_list_mute_and_add_without_breaking_the_file(tmp_path: Path) -> None:
    listed = read_json("pool", "list")
    assert isinstance(listed, list)
    assert {worker["worker"] for worker in listed} >= {"calc-quick", "smollm2-135m"}
    assert "calc-quick" in run("pool", "list").stdout
    run("pool", "mute", "calc-quick")
    assert "muted" in run("pool", "list").stdout
    run("pool", "unmute", "calc-quick")
    muted = [worker for worker in read_json("pool", "list") if worker["muted"]]  # type: ignore[attr-defined]  # a list
    assert muted == []
    Path("ripieno.toml").write_text("# my notes\n")
    dry = run("pool", "add", "small", "--provider", "mine", "--base-url", "http://127.0.0.1:9/v1", "--dry-run")
    assert "[workers.small]" in dry.stdout
    assert Path("ripieno.toml").read_text() == "# my notes\n"
    run("pool", "add", "small", "--provider", "mine", "--base-url", "http://127.0.0.1:9/v1", "--context-window", "4096")
    text = Path("ripieno.toml").read_text()
    assert text.startswith("# my notes")
    assert "already" in run("pool", "add", "small", "--provider", "mine", code=2).stderr
    assert "not configured" in run("pool", "add", "other", "--provider", "gone", code=3).stderr
    assert "not canonical" in run("pool", "add", "Other One", "--provider", "mine", code=3).stderr
    assert Path("ripieno.toml").read_text() == text
    assert not list(tmp_path.glob(".ripieno-*"))


def test_settings_are_shown_with_their_origin_and_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", "gate-secret")
    Path("ripieno.toml").write_text("[gateway]\nport = 4999\n")
    shown = run("config", "show").stdout
    assert "gate-secret" not in shown
    rows = {row["key"]: row for row in read_json("config", "show")}  # type: ignore[attr-defined]  # a list
    assert rows["gateway.port"] == {"key": "gateway.port", "value": "4999", "origin": "file"}
    assert rows["gateway.api_key"]["value"] == "set, not shown"
    assert rows["gateway.api_key"]["origin"] == "environment"
    assert "utility" in run("doctor", "--plugins").stdout
    plugins = read_json("doctor", "--plugins")
    assert isinstance(plugins, list)
    assert all(plugin["fault"] is None for plugin in plugins)
    assert "worker calc-quick: ok, importable" in run("doctor").stderr


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + HANG_S
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
    return path.read_text().strip()


def post(url: str, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=HANG_S) as response:
        found: dict[str, object] = json.loads(response.read())
        return found | {"worker": response.headers["x-ripieno-worker"]}


def test_a_running_gateway_stops_using_a_muted_worker(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("w") as file, (tmp_path / "err").open("w") as faults:
        server = subprocess.Popen([RIPIENO, "serve", "--port", "0"], stdout=file, stderr=faults)
    try:
        address = wait_for(out)
        ask: dict[str, object] = {"model": "auto", "messages": [{"role": "user", "content": "What is 12 + 30?"}],
                                  "ripieno": {"workers": ["calc-quick", "calc-symbolic"]}}  # fmt: skip
        first = post(f"{address}/chat/completions", ask)["worker"]
        run("pool", "mute", str(first))
        second = post(f"{address}/chat/completions", ask)["worker"]
        assert {first, second} == {"calc-quick", "calc-symbolic"}
        explained = read_json("explain", "last")
        assert isinstance(explained, dict)
        assert explained["masked"][str(first)]["reason"] == "muted"
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(HANG_S) == 0
    assert "curl" in (tmp_path / "err").read_text()


def test_a_report_states_missing_evidence() -> None:
    assert "no task of traffic" in run("report", code=1).stderr
    run("ask", "What is 12 + 30?")
    told = run("report").stdout
    assert "0 of 50 judged" in told
    assert "overqualified workers: a cheaper one does as well: not enough evidence: 0 of 50 judged" in told
    assert json.loads(run("report", "--json").stdout)["thin"]["local"] == "not enough evidence: 0 of 50 judged"


def test_top_shows_decisions_and_workers() -> None:
    assert "0 latest runs" in run("top", "--once").stdout
    run("ask", "What is 12 + 30?")
    decision = str(read_json("explain", "last")["decision"])  # type: ignore[index]  # a mapping
    run("feedback", decision, "--quality", "1")
    run("ask", "What is 13 + 30?")
    told = run("top").stdout
    assert told.startswith("2 latest runs")
    assert "calc-" in told
    assert "1.00" in told
    assert "highest utility" in told


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are opened otherwise there")
def test_top_updates_on_a_terminal_until_interrupted() -> None:
    import os
    import pty

    run("ask", "What is 12 + 30?")
    outer, inner = pty.openpty()
    process = subprocess.Popen([RIPIENO, "top", "--every", "0.2"], stdout=inner, stderr=inner, stdin=inner)
    os.close(inner)
    seen = b""
    while b"latest runs" not in seen:
        seen += os.read(outer, 65536)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=HANG_S) == 130
    os.close(outer)
