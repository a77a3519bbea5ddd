"""Settings and set-up as a user meets them: homes, folders in the wrong place, doctor, config show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ripieno.app import Installation
from ripieno.cli.errors import report
from ripieno.cli.main import cli
from ripieno.config import load_settings
from ripieno.errors import ConfigError, RipienoError

RIPIENO = str(Path(sys.executable).parent / "ripieno")
WORKER = "[providers.own]\nkind = 'openai'\nbase_url = 'http://127.0.0.1:9/v1'\n[workers.x]\nprovider = 'own'\n"


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [RIPIENO, *arguments], capture_output=True, text=True, env=os.environ | variables, check=False
    )


def call(*arguments: str) -> Result:
    """Run a command in this process; an error ends it as `main` would."""
    result = CliRunner().invoke(cli, list(arguments))
    if isinstance(result.exception, RipienoError):
        result.exit_code = report(result.exception)
    return result


def test_a_file_elsewhere_works_on_the_ledger_next_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    (tmp_path / "x.toml").write_text("")
    monkeypatch.chdir(deep)
    done = run("--config", "../x.toml", "ask", "12 * 4")
    assert (done.returncode, done.stdout) == (0, "48\n"), done.stderr
    assert (tmp_path / ".ripieno" / "ledger.db").exists()
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["ask", "1 + 1"], ["pool", "list"], ["keys", "list"], ["ledger", "verify"], ["serve", "--port", "0"]],
    ids=" ".join,
)
def test_a_home_that_cannot_be_written_is_named(arguments: list[str]) -> None:
    Path(".ripieno").write_text("a file")
    result = call(*arguments)
    assert result.exit_code == 3
    assert isinstance(result.exception, ConfigError)
    assert "the home folder '.ripieno' cannot be written" in result.exception.message
    assert "RIPIENO_HOME" in str(result.exception.hint)
    assert Path(".ripieno").read_text() == "a file"
    assert [path.name for path in Path().iterdir()] == [".ripieno"]


def test_a_settings_file_that_is_a_folder_is_named() -> None:
    Path("x.toml").mkdir()
    result = call("--config", "x.toml", "config", "show")
    assert result.exit_code == 3
    assert "x.toml cannot be read" in str(result.exception)


def test_a_key_of_a_missing_provider_is_reported_and_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_PROVIDERS__OPENAI__API_KEY", "sk-very-secret")
    result = call("config", "show")
    assert result.exit_code == 0
    assert "RIPIENO_PROVIDERS__OPENAI__API_KEY is ignored" in result.stderr
    assert "sk-very-secret" not in result.output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WORKER.replace("[workers", "colour = 1\n[workers"), "ripieno.toml, line 4: providers.own.colour"),
        (WORKER + "[workers.x.options]\ncolour = 1\n", "ripieno.toml, line 7: workers.x.options.colour"),
        (WORKER + "[encoder.options]\ncolour = 1\n", "ripieno.toml, line 7: encoder.options.colour"),
        (WORKER.replace("'openai'", "'opneai'"), "ripieno.toml, line 2: provider 'own': unknown kind 'opneai'"),
        (WORKER.replace("http:", "ftp:"), "ripieno.toml, line 3: providers.own.base_url"),
    ],
)
def test_a_wrong_option_is_named_with_file_and_line(text: str, told: str) -> None:
    Path("ripieno.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Installation(load_settings())
    assert caught.value.message.startswith(told)


def test_a_relative_path_of_an_option_starts_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"")
    (folder / "x.toml").write_text("[providers.own]\nkind = 'llama'\npath = 'm.gguf'\n[workers.x]\nprovider = 'own'\n")
    found = call("--config", "deep/x.toml", "pool", "check", "--json")
    assert '"ok": true' in found.output
    assert "weights at m.gguf" in found.output


def test_doctor_checks_each_part_despite_other_faults() -> None:
    Path("ripieno.toml").write_text(WORKER + "[encoder]\nname = 'remote'\n[ledger]\nurl = 'sqlite:///broken.db'\n")
    Path("broken.db").write_text("this is no database, and long enough to be read as one" * 40)
    done = run("doctor")
    assert done.returncode == 3
    lines = dict(line.partition(": ")[::2] for line in done.stderr.splitlines())
    assert lines["settings"].startswith("ok")
    assert lines["home"].startswith("ok, writable")
    assert "broken.db" in lines["ledger"]
    assert "encoder.options" in lines["encoder"]
    assert "cannot be reached" in lines["worker x"]


def test_doctor_prints_each_line_once() -> None:
    Path("ripieno.toml").write_text(WORKER)
    lines = run("doctor").stderr.splitlines()
    assert [line for line in lines if line.startswith("drift detection")] == ["drift detection: ok, on"]
    assert len(lines) == len(set(lines))


def test_doctor_reports_ok_only_for_imported_parts() -> None:
    Path("broken_worker.py").write_text("import a_package_that_is_nowhere\n")
    Path("ripieno.toml").write_text(
        "[providers.own]\nkind = 'callable'\n[workers.x]\nprovider = 'own'\nmodel = 'broken_worker:solve'\n"
    )
    done = run("doctor", PYTHONPATH=os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    assert done.returncode == 4
    assert "worker x: worker 'x': model 'broken_worker:solve' cannot be imported" in done.stderr
    assert "encoder: ok" in done.stderr
    assert "ledger: ok, 0 entries" in done.stderr
    assert "memory: ok, 0 items" in done.stderr


def test_a_key_needs_a_unique_name(capsys: pytest.CaptureFixture[str]) -> None:
    made = json.loads(call("keys", "create", "team-a", "--json").stdout)
    refusals = {
        "": "error: the name of a key may not be empty, got ''\nhint: name its user, such as team-a\n",
        "team-a": f"error: the live key {made['id']} already has the name 'team-a'\nhint: choose another name, "
        f"or end that key first: `ripieno keys revoke {made['id']}`\n",
    }
    for name, told in refusals.items():
        assert call("keys", "create", name).exit_code == 2
        assert capsys.readouterr().err == told
    assert len(json.loads(call("keys", "list", "--json").stdout)) == 1
    assert call("keys", "revoke", made["id"]).exit_code == 0
    assert call("keys", "create", "team-a").exit_code == 0
