"""Extras: what needs one says which, and a gateway that decides needs none."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from tests.e2e.sums import write_sums
from tests.e2e.test_cli import read_json, run
from tests.unit.test_tasks import make_folder

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ripieno"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = {"scipy", "sklearn", "river", "pyarrow", "matplotlib", "sympy", "pandas", "openai", "tokenizers", "torch"}
UNGUARDED = {
    "embedded/workers/dates.py",
    "embedded/workers/sentiment.py",
    "embedded/workers/spelling.py",
    "embedded/workers/units.py",
    "privacy/personal.py",
    "providers/llama_child.py",
    "verify/jailed/server.py",
}
"""Modules that are entered only after their package was found: a provider names the extra, or the boundary does."""

SERVING = """
import asyncio, json, sys
from http.client import HTTPConnection

from ripieno import Installation
from ripieno.gateway import bind_socket, running


def ask(address):
    connection = HTTPConnection(address.removeprefix("http://"), timeout=60)
    body = {"model": "auto", "messages": [{"role": "user", "content": "How many pears are 7 and 9 ?"}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())["choices"][0]["message"]["content"]


async def main():
    async with Installation() as app:
        with bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0})) as listener:
            async with running(app, listener) as address:
                status, answer = await asyncio.to_thread(ask, address)
        decided = app.ledger.decisions.find(app.ledger.decisions.last())
        loaded = sorted({name.partition(".")[0] for name in sys.modules})
        print(json.dumps([status, answer, decided.decision.predictor, loaded]))


asyncio.run(main())
"""


@pytest.fixture
def hide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make packages absent for every Python that is started: `None` in sys.modules is how Python marks that."""

    def make_absent(*packages: str) -> None:
        folder = tmp_path / "hidden"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({packages!r}))\n")
        path = (str(folder), os.environ.get("PYTHONPATH"))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(part for part in path if part))

    return make_absent


def make_trained_pool() -> None:
    """Two callables, measured and learned from, in the current folder."""
    write_sums(60)
    run("profile", "tasks.jsonl", "--name", "sums")


def test_a_gateway_decides_with_a_checkpoint_and_loads_no_library_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hide: Callable[..., None]
) -> None:
    path = (str(tmp_path), os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(part for part in path if part))
    make_trained_pool()
    trained = read_json("train")
    assert isinstance(trained, dict)
    assert trained["fate"].startswith("promoted")
    served = subprocess.run([sys.executable, "-c", SERVING], capture_output=True, text=True, check=True)
    status, answer, predictor, loaded = json.loads(served.stdout.splitlines()[-1])
    assert (status, answer) == (200, "16")
    assert predictor.startswith("stack-")
    assert not HEAVY & set(loaded)
    hide(*HEAVY)
    again = subprocess.run([sys.executable, "-c", SERVING], capture_output=True, text=True, check=True)
    assert json.loads(again.stdout.splitlines()[-1])[:3] == [status, answer, predictor], "and it needs none of them"


def test_train_and_evaluate_name_their_missing_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hide: Callable[..., None]
) -> None:
    make_folder(tmp_path / "set", form="jsonl")
    hide("sklearn", "scipy", "river", "pyarrow", "cma", "mcp", "pint", "reasoning_gym", "redis", "limits")
    run("ledger", "import", "set")
    commands = {"demo": "demo", "mcp": "mcp", "conductor train": "conductor", "profile gym:chain_sum": "tasks"}
    for command, extra in commands.items():
        said = run(*command.split(), code=3).stderr
        assert f"hint: pip install 'ripieno[{extra}]'" in said
        assert re.search(r"^error: .+ needs the package '\w+', which is not installed$", said, re.MULTILINE)
    assert "hint: pip install 'ripieno[data]'" in _import_parquet(tmp_path)
    run("ledger", "export", "copy", "--dataset", "set")
    assert sorted(path.name for path in Path("copy").iterdir()) == ["models.jsonl", "outcomes.jsonl", "prompts.jsonl"]
    assert read_json("ledger", "import", "copy", "--dry-run") == [{"dataset": "copy", "outcomes": 4, "new": 0}]
    Path("ripieno.toml").write_text("[gateway]\nshared_url = 'redis://127.0.0.1:1/0'\n")
    monkeypatch.setenv("RIPIENO_GATEWAY__PORT", "0")
    assert "hint: pip install 'ripieno[redis]'" in run("serve", code=3).stderr


def _import_parquet(folder: Path) -> str:
    (folder / "old").mkdir()
    (folder / "old" / "prompts.parquet").write_bytes(b"PAR1")
    for name in ("outcomes", "models"):
        (folder / "old" / f"{name}.jsonl").write_text("{}\n")
    return run("ledger", "import", str(folder / "old"), code=3).stderr


def list_modules(requirements: list[str]) -> set[str]:
    """Modules that requirements bring: those that their distributions hold, where these are installed here."""
    names = {re.split(r"[\[>=<;! ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}
    mapped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["deptry"]["package_module_name_map"]
    modules = {module for name, module in mapped.items() if name in names}
    for module, distributions in packages_distributions().items():
        if any(each.lower().replace("_", "-") in names for each in distributions):
            modules.add(module)
    return modules


EXTRAS = {name: list_modules(parts) for name, parts in PROJECT["optional-dependencies"].items() if name != "all"}
CORE = list_modules(PROJECT["dependencies"])


def list_imports(tree: ast.AST, guards: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str], int]]:
    """Roots of what is imported, with the extras whose guard stands around each; type checking does not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        inner = guards
        if isinstance(node, ast.With):
            for item in node.items:
                call = item.context_expr
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "needs_extra":
                    assert isinstance(call.args[0], ast.Constant)
                    inner = guards | {str(call.args[0].value)}
        if isinstance(node, ast.Import):
            yield from ((each.name.partition(".")[0], guards, node.lineno) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module.partition(".")[0], guards, node.lineno
        yield from list_imports(node, inner)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_optional_imports_name_their_extra(path: Path) -> None:
    tree = ast.parse(path.read_text())
    guarded: dict[str, set[str]] = {}
    for module, guards, line in list_imports(tree):
        extras = {name for name, modules in EXTRAS.items() if module in modules} if module not in CORE else set()
        if not extras or str(path.relative_to(SOURCE)) in UNGUARDED:
            continue
        if guards:
            assert guards & extras, f"line {line}: {module} is of {extras}, the guard says {set(guards)}"
            guarded.setdefault(module, set()).update(guards)
        else:
            assert module in guarded or _is_checked(tree, extras), f"line {line}: {module} of {extras} has no guard"


def _is_checked(tree: ast.AST, extras: set[str]) -> bool:
    """Whether the module refuses at its entrance where the extra is missing."""
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(
        ast.unparse(call.func) in ("require_extra", "needs_extra") and ast.literal_eval(call.args[0]) in extras
        for call in called
    )
