"""Run an answer's Python code against unit tests, away from this process.

The child has its own session, limits of CPU, memory, file size and processes, an empty environment and folder, no
network (a namespace of its own where the kernel allows it, and refusal by audit hook everywhere), and may write only in
its folder. It keeps faults and greed of a model's code away; it is no prison for a determined attacker.
"""

import asyncio
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
from importlib.resources import as_file, files

from ripieno.domain import Verdict
from ripieno.domain.grader import Pattern, UnitTests
from ripieno.verify.text import final_answer

MEMORY_BYTES = 512 * 1024 * 1024
PATTERN_S = 2.0
"""That a regular expression may take."""
LONGEST_OUTPUT = 64 * 1024
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


async def check_tests(grader: UnitTests, text: str) -> Verdict:
    """Whether the reply's code passes the tests within its time."""
    code = extract_code(text)
    if grader.prefix and not _defines_same(grader.prefix, code):
        code = grader.prefix + code
    passed, detail = await run_sandboxed(code, grader.tests, timeout_s=grader.timeout_s)
    return Verdict(verifier="unit_tests", quality=float(passed), detail=detail)


async def check_pattern(grader: Pattern, text: str) -> Verdict:
    """Whether the final answer, or the whole text, matches a regular expression: tried where it may take for ever."""
    candidates = [text.strip()[:LONGEST_OUTPUT], final_answer(text)[:LONGEST_OUTPUT]]
    code = f"import re\nPATTERN = re.compile({grader.pattern!r})\n"
    tests = f"assert any(PATTERN.fullmatch(text) for text in {candidates!r}), 'no match'\n"
    passed, detail = await run_sandboxed(code, tests, timeout_s=PATTERN_S)
    return Verdict(verifier="pattern", quality=float(passed), detail=detail)


def extract_code(text: str) -> str:
    """The fenced blocks of a reply, joined; the whole reply where there is none."""
    blocks = _FENCE.findall(text)
    return "\n".join(blocks) if blocks else text


async def run_sandboxed(code: str, tests: str, *, timeout_s: float) -> tuple[bool, str]:
    """Run code, then tests; passed only if the tests ran to their end.

    The child learns the word it must say only after the code was loaded, so that an early exit, or a printed claim,
    proves nothing.
    """
    word = secrets.token_hex(16)
    folder = tempfile.mkdtemp(prefix="ripieno-sandbox-")
    child = None
    try:
        with as_file(files("ripieno.verify") / "sandbox_child.py") as script:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                "-B",
                str(script),
                str(MEMORY_BYTES),
                str(max(1, round(timeout_s + 1))),
                cwd=folder,
                env={},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        async with asyncio.timeout(timeout_s):
            said, faults = await child.communicate(_frame(code) + _frame(tests) + word.encode())
    except TimeoutError:
        return False, f"over {timeout_s:g} s"
    finally:
        if child is not None:
            _end(child)
            await child.wait()
        shutil.rmtree(folder, ignore_errors=True)
    if child.returncode == 0 and said[-len(word) :] == word.encode():
        return True, ""
    lines = faults[-LONGEST_OUTPUT:].decode("utf-8", "replace").strip().splitlines()
    return False, lines[-1][:200] if lines else f"ended early with code {child.returncode}"


def _frame(text: str) -> bytes:
    packed = text.encode("utf-8", "surrogatepass")
    return len(packed).to_bytes(8, "big") + packed


def _end(child: asyncio.subprocess.Process) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _defines_same(prefix: str, code: str) -> bool:
    names = set(re.findall(r"^def (\w+)", prefix, re.MULTILINE))
    return bool(names & set(re.findall(r"^def (\w+)", code, re.MULTILINE)))
