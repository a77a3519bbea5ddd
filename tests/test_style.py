"""Rules of the house that no linter knows."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_a_module_is_short_documented_and_does_no_work_on_import(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert count_lines(node) <= 50, f"{node.name} is too long"
            flags = [a.arg for a in node.args.args if isinstance(a.annotation, ast.Name) and a.annotation.id == "bool"]
            assert not flags, f"{node.name}: options are keyword-only"
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert (node.end_lineno or 0) - node.lineno < 200, f"{node.name} is too long"
            assert sum(not each.name.startswith("_") for each in methods) <= 12, f"{node.name} has too many methods"


def test_broad_excepts_stand_only_where_foreign_code_is_entered() -> None:
    found = {
        str(path.relative_to(ROOT / "src" / "ripieno"))
        for path in MODULES
        if re.search(r"except (Exception|BaseException)\b", path.read_text())
    }
    assert found == {
        "cli/main.py",
        "gateway/asgi.py",
        "gateway/server.py",
        "ledger/database.py",
        "ledger/commit.py",
        "ledger/writer.py",
        "loops.py",
        "plugins.py",
        "providers/callables.py",
        "providers/caller.py",
        "providers/mcp.py",
        "verify/jailed/candidate.py",
        "verify/jailed/driver.py",
        "verify/jailed/server.py",
        "verify/jailed/wire.py",
    }


def test_class_names_are_unique_in_the_package() -> None:
    nodes = (node for path in MODULES for node in ast.walk(ast.parse(path.read_text())))
    counts = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert {name for name, count in counts.items() if count > 1} == set()


def test_nothing_evaluates_unpickles_or_shells_out() -> None:
    for path in MODULES:
        if path.parent.name == "jailed":
            continue
        text = path.read_text()
        assert not re.search(r"(?<![\w.])(eval|exec)\(|pickle\.|shell=True|os\.system", text), path


def test_no_test_sleeps_or_mocks() -> None:
    for path in TESTS:
        if path == Path(__file__):
            continue
        text = path.read_text()
        assert not re.search(r"time\.sleep|unittest\.mock|MagicMock|asyncio\.sleep\((?!0\))", text), path


def test_what_is_public_is_what_is_named() -> None:
    import ripieno

    for name in ripieno.__all__:
        assert getattr(ripieno, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        ripieno.nonsense  # noqa: B018  # the attribute access is what is tested


def count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function, without its docstring."""
    first = function.body[0]
    documented = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documented
