"""What the docs show is so: commands exist, the tree is drawn, the lock holds no address."""

import re
import tomllib
from pathlib import Path

import click
import pytest

from ripieno.cli.main import COMMANDS, LazyGroup, cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def find_command(words: list[str]) -> click.Command | None:
    """Follow a command line as far as it names commands."""
    assert isinstance(cli, LazyGroup)
    command = cli.get_command(click.Context(cli), words[0])
    if isinstance(command, click.Group) and len(words) > 1:
        return command.get_command(click.Context(command), words[1])
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    for line in re.findall(r"^\$? ?ripieno (?:--config \S+ )?(.+)$", page.read_text(), re.MULTILINE):
        words = line.split()
        if words[0].startswith("-"):
            continue
        command = find_command(words)
        assert command is not None, line
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        for option in re.findall(r"(?<=\s)--[a-z-]+", line.split("#")[0]):
            assert option in known, f"{option} in {line!r}"


def test_every_command_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for name in COMMANDS:
        assert f"## ripieno {name}" in reference


def test_the_tree_of_the_docs_is_the_tree_of_the_source() -> None:
    drawn = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    source = ROOT / "src" / "ripieno"
    names = {p.name for p in source.iterdir() if not p.name.startswith("__")}
    for name in names:
        shown = f"{name}/" if (source / name).is_dir() else name
        assert re.search(rf"^\s*{re.escape(shown)}\s", drawn, re.MULTILINE), shown


def test_every_link_of_the_readme_works_on_the_package_index() -> None:
    """README is the project's page there: a link without a host leads nowhere; what it names must be in the tree."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text())
    assert links
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    home = project["urls"]["Repository"]
    for link in links:
        assert link.startswith("https://"), link
        path = re.sub(rf"^({home}/blob|https://raw\.githubusercontent\.com/ripieno/ripieno)/(main/)?", "", link)
        assert path == link or (ROOT / path).exists(), link


def test_no_committed_lock_names_a_registry() -> None:
    for path in (ROOT / "requirements").iterdir():
        assert not re.search(r"https?://|--index|--find-links", path.read_text()), path.name
    locked = (ROOT / "requirements" / "run.txt").read_text()
    assert not re.search(r"^(torch|nvidia)", locked, re.MULTILINE)
    assert all("--hash=sha256:" in part for part in re.split(r"\n(?=\S)", locked.strip()))


def test_every_dependency_has_its_line_and_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = (ROOT / "docs" / "explanation" / "dependencies.md").read_text().lower()
    core = [re.split(r"[\[>=; ]", each)[0] for each in project["dependencies"]]
    assert len(core) > 20
    for name in core:
        assert f"| `{name}` |" in told, name
    for extra, parts in project["optional-dependencies"].items():
        for name in (re.split(r"[\[>=; ]", each)[0] for each in parts if not each.startswith("ripieno[")):
            assert re.search(rf"^\| `{name}` \(extra `{extra}`\) \|", told, re.MULTILINE), f"{name} of {extra}"
