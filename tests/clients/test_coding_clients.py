"""Coding clients, unchanged, as far as they are here: `make clients` fetches one from the npm registry."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.conftest import HANG_S

from ripieno.testing import ScriptedServer

ROOT = Path(__file__).parents[2]
PLACES = f"{ROOT / '.cache' / 'clients' / 'node_modules' / '.bin'}:{os.environ['PATH']}"
PAGE = (ROOT / "docs" / "how-to" / "clients.md").read_text()


def find(name: str) -> str:
    found = shutil.which(name, path=PLACES)
    if found is None:
        pytest.skip(f"{name} is not here: `make clients`, or npm install it")
    return found


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"HOME": str(folder)} | dict(environment), check=False,
        capture_output=True, text=True, timeout=HANG_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_opencode(gateway: str, tmp_path: Path) -> None:
    command = find("opencode")
    found = re.search(r"```json\n(.+?)```", PAGE, flags=re.DOTALL)
    assert found is not None
    settings = json.loads(found.group(1).replace("http://127.0.0.1:4141", gateway)) | {"autoupdate": False}
    models = settings["provider"]["ripieno"]["models"]
    models["obliging"] = models["auto"]
    (tmp_path / "opencode.json").write_text(json.dumps(settings))
    quiet = {
        "OPENCODE_CONFIG": str(tmp_path / "opencode.json"),
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
    }
    said = run([command, "run", "-m", "ripieno/obliging", "say hi"], tmp_path, quiet)
    assert "You said" in said


def test_codex(gateway: str, tmp_path: Path, upstream: ScriptedServer) -> None:
    command = find("codex")
    (tmp_path / "config.toml").write_text(
        f'model = "obliging"\nmodel_provider = "ripieno"\n[model_providers.ripieno]\nname = "Ripieno"\n'
        f'base_url = "{gateway}/v1"\nenv_key = "OPENAI_API_KEY"\nwire_api = "responses"\n'
    )
    keys = {"CODEX_HOME": str(tmp_path), "OPENAI_API_KEY": "none"}
    assert "You said" in run([command, "exec", "--skip-git-repo-check", "say hi"], tmp_path, keys)


def test_claude_code(gateway: str, tmp_path: Path) -> None:
    command = find("claude")
    settings = {
        "ANTHROPIC_BASE_URL": gateway,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "ANTHROPIC_MODEL": "obliging",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    assert run([command, "-p", "say hi"], tmp_path, settings).strip()
