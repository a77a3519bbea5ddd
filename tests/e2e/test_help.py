"""Help: of every command, without the heavy packages; completion for three shells."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ripieno.cli.main import COMMANDS, cli

RIPIENO = str(Path(sys.executable).parent / "ripieno")
HEAVY = ("numpy", "sqlalchemy", "alembic", "pydantic", "pydantic_settings", "msgspec", "scipy", "sklearn", "rich")
PROBE = """
import json, sys
from ripieno.cli.main import cli
cli.main(sys.argv[1:], standalone_mode=False)
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def list_commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from list_commands(command, (*path, name))


def test_every_command_and_subcommand_has_help_with_an_example() -> None:
    assert isinstance(cli, click.Group)
    names = list(list_commands(cli))
    assert len(names) > 55
    assert {name for name, *rest in names if not rest} == set(COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_imports_no_heavy_package(name: str) -> None:
    """Every subcommand of one command in one process: what one of them imports, the last one shows."""
    assert isinstance(cli, click.Group)
    command = cli.get_command(click.Context(cli), name)
    paths: list[tuple[str, ...]] = [(name,)]
    if isinstance(command, click.Group):
        paths += list_commands(command, (name,))
    script = "".join(f"cli.main({[*path, '--help']!r}, standalone_mode=False)\n" for path in paths)
    done = subprocess.run(
        [sys.executable, "-c", PROBE.replace("cli.main(sys.argv[1:], standalone_mode=False)\n", script)],
        capture_output=True,
        text=True,
        check=True,
    )
    *shown, modules = done.stdout.strip().split("\n")
    assert sum(line.startswith("Usage: ") for line in shown) == len(paths)
    assert not set(HEAVY) & set(json.loads(modules))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    done = subprocess.run([RIPIENO, "completion", shell], capture_output=True, text=True, check=True)
    assert "_RIPIENO_COMPLETE" in done.stdout
    assert done.stderr == ""


def test_completion_completes_commands_and_options() -> None:
    def complete(words: str, count: int) -> str:
        variables = {"_RIPIENO_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        return subprocess.run([RIPIENO], capture_output=True, text=True, env=variables, check=True).stdout

    assert "plain,profile" in complete("ripieno pro", 1).split("\n")
    assert "plain,--base-url" in complete("ripieno pool add --ba", 3).split("\n")


def test_completion_refuses_another_shell() -> None:
    done = subprocess.run([RIPIENO, "completion", "tcsh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr


def test_explicit_choices_match_the_code() -> None:
    from ripieno.cli.evaluate import evaluate
    from ripieno.cli.policy import policy
    from ripieno.cli.removed import ChoiceWithRemoved
    from ripieno.cli.train import train
    from ripieno.evaluate.benchmark import BASELINE_KINDS
    from ripieno.evaluate.newcomers import PROBES
    from ripieno.learn.promotion import MOST_PAIRS
    from ripieno.route.predictors import KINDS

    def option(command: click.Command, name: str) -> click.Parameter:
        return next(each for each in command.params if name in each.opts)

    kinds = option(train, "--policy").type
    assert isinstance(kinds, ChoiceWithRemoved)
    assert {*kinds.choices, *kinds.removed} == set(KINDS)
    assert set(BASELINE_KINDS) <= kinds.removed.keys()
    assert option(evaluate, "--probes").default == ",".join(map(str, PROBES))
    assert isinstance(policy, click.Group)
    assert option(policy.commands["shadow"], "--pairs").default == MOST_PAIRS


@pytest.mark.parametrize(
    ("command", "successor"),
    [
        (("approvals", "list"), "`ripieno runs list`"),
        (("approvals", "approve", "3f2a91", "--by", "ada"), "`ripieno runs approve`"),
        (("approvals", "--help"), "`ripieno runs deny`"),
        (("plugins", "list", "--json"), "`ripieno doctor --plugins`"),
        (("train", "--policy", "knn"), "`ripieno evaluate --policy`"),
        (("train", "--policy", "boosting"), "'stack'"),
    ],
)
def test_removed_commands_and_values_name_their_successor(command: tuple[str, ...], successor: str) -> None:
    done = subprocess.run([RIPIENO, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "was removed" in done.stderr
    assert successor in done.stderr
    assert done.stdout == ""
