"""Install the wheel without any extra in fresh environments, and run every command from an empty folder.

    scripts/install_check.py PYTHON...      prints one table for each Python; exit 1 where something does not work

Each command must exit as said here; those that need an extra must name the `pip install` line that brings it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_DISTRIBUTIONS = 53
"""Beside pip and setuptools, which the environment itself brings."""
MOST_MB = 200
START_S = 120.0
"""A guard against a gateway that hangs; it starts in about a second."""


@dataclass(frozen=True, slots=True)
class Case:
    """One command, how it must exit, and what it must say."""

    command: str
    code: int = 0
    says: str = ""


CASES = (
    Case("--version", says=r"\d+\.\d+"),
    Case("--help", says="serve"),
    Case("ask What+is+15%+of+80?", says=r"^12$"),
    Case("route What+is+15%+of+80?", says=r"\S"),
    Case("explain last", says=r"\S"),
    Case("pool list", says="calc-symbolic"),
    Case("pool check", code=4, says=r"calc-symbolic +ok"),
    Case("doctor", code=4, says="worker calc-symbolic: ok"),
    Case("policy list", says=r"\S"),
    Case("config show", says="gateway.port"),
    Case("doctor --plugins", says="utility"),
    Case("memory remember The+gate+code+is+blue"),
    Case("memory recall gate+code", says="blue"),
    Case("ledger verify", says="entries"),
    Case("keys list"),
    Case("report"),
    Case("audit"),
    Case("demo", code=3, says=r"pip install 'ripieno\[demo\]'"),
    Case("mcp", code=3, says=r"pip install 'ripieno\[mcp\]'"),
    Case("profile gym:chain_sum", code=3, says=r"pip install 'ripieno\[tasks\]'"),
    Case("conductor train", code=3, says=r"pip install 'ripieno\[conductor\]'"),
)


def main(pythons: list[str]) -> int:
    """Check each Python; gives the exit code."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="ripieno-install-") as folder:
        wheel = build_wheel(Path(folder), pythons[0])
        print(f"wheel: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        for number, python in enumerate(pythons):
            home = Path(folder) / f"venv-{number}"
            failed += check(python, wheel, home)
            shutil.rmtree(home, ignore_errors=True)
    return 1 if failed else 0


def build_wheel(folder: Path, python: str) -> Path:
    """Build the wheel with pip, in an environment of its own."""
    command = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    return next(folder.glob("ripieno-*.whl"))


def check(python: str, wheel: Path, home: Path) -> int:
    """Install and run everything; gives how much failed."""
    start = time.monotonic()
    subprocess.run([python, "-m", "venv", str(home)], check=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", str(wheel)], check=True, stderr=subprocess.PIPE)
    listed = subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True, text=True).stdout
    names = {part["name"].lower() for part in json.loads(listed)}
    count = len(names - {"pip", "setuptools", "wheel"})
    version = subprocess.run([str(home / "bin" / "python"), "--version"], capture_output=True, text=True, check=True)
    site = next((home / "lib").glob("python*/site-packages"))
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file() and not _is_of_pip(file, site)) / 1e6
    print(f"\n{version.stdout.strip()}: {count} distributions, {size:.0f} MB, in {time.monotonic() - start:.0f} s")
    failed = int(count > MOST_DISTRIBUTIONS) + int(size > MOST_MB)
    with tempfile.TemporaryDirectory(prefix="ripieno-empty-") as empty:
        for case in CASES:
            failed += not run_case(home / "bin" / "ripieno", case, Path(empty))
        failed += not run_gateway(home / "bin" / "ripieno", Path(empty))
    print(f"{failed} failed")
    return failed


def _is_of_pip(file: Path, site: Path) -> bool:
    top = file.relative_to(site).parts[0].lower()
    return re.match(r"(pip|setuptools|wheel|pkg_resources|_distutils_hack|distutils-precedence)\b", top) is not None


def clean_environment() -> dict[str, str]:
    """The environment without what points at a source tree or sets Ripieno up."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    return {k: v for k, v in os.environ.items() if k not in hidden and not k.startswith("RIPIENO_")}


def run_case(ripieno: Path, case: Case, folder: Path) -> bool:
    """Run one command; prints a line, gives whether it did as it must."""
    arguments = [part.replace("+", " ") for part in case.command.split()]
    start = time.monotonic()
    done = subprocess.run(
        [str(ripieno), *arguments], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env=clean_environment(), timeout=START_S, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    is_right = (
        done.returncode == case.code
        and re.search(case.says, said, re.MULTILINE) is not None
        and "Traceback" not in said
    )
    print(f"  {'ok    ' if is_right else 'FAILED'} {case.command.replace('+', ' '):45} exit {done.returncode} "
          f"{time.monotonic() - start:5.1f} s", flush=True)  # fmt: skip
    if not is_right:
        print("".join(f"         {line}\n" for line in said.splitlines()[-12:]), end="")
    return is_right


def run_gateway(ripieno: Path, folder: Path) -> bool:
    """Start the gateway, ask it over HTTP, end it; prints a line, gives whether it answered."""
    serve = subprocess.Popen(
        [str(ripieno), "serve", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=clean_environment(),
    )  # fmt: skip
    said, answer = [], ""
    try:
        assert serve.stdout is not None
        for line in serve.stdout:
            said.append(line)
            if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)) is not None:
                answer = ask(int(found[1]))
                break
        serve.terminate()
        has_ended = _wait(serve)
    finally:
        serve.kill()
        serve.wait()
    is_right = answer == "12" and has_ended
    print(f"  {'ok    ' if is_right else 'FAILED'} serve, a chat completion: {answer!r}, end: {has_ended}")
    if not is_right:
        print("".join(f"         {line}" for line in said[-12:]))
    return is_right


def _wait(process: "subprocess.Popen[str]") -> bool:
    """Whether it ends by itself."""
    try:
        process.wait(timeout=START_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def ask(port: int) -> str:
    """Ask the gateway for a chat completion; gives the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=START_S)
    body = {"model": "auto", "messages": [{"role": "user", "content": "What is 15% of 80?"}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    reply = connection.getresponse().read()
    connection.close()
    return str(json.loads(reply)["choices"][0]["message"]["content"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [sys.executable]))
