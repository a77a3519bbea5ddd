"""Unit tests of a reply's code: the code runs in one jail, the tests in another, and the tests decide.

The code under test never sees the tests, their process, or their verdict. The tests call its functions, it answers with
data, and the tests compare the data on their side.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

import msgspec

from ripieno.domain import Verdict
from ripieno.domain.grader import UnitTests
from ripieno.verify.jail import INSIDE, START_S, JailLimits, NoJail, open_jail, take_turn

LONGEST_REPORT = 64 * 1024
MOST_S = 60.0
"""Longest time that tests may take, whatever their grader allows."""
LAST_WORDS_S = 2.0
"""Seconds that a process that failed to start may take to write the reason."""

_Process = asyncio.subprocess.Process


class _Report(msgspec.Struct):
    ready: bool = False
    passed: bool = False
    detail: str = ""


async def check_tests(grader: UnitTests, text: str) -> Verdict:
    """Check whether the reply's code passes the tests in time.

    Raises:
        NoJail: no jail is available or starts, so the quality is unknown.
    """
    timeout_s = min(grader.timeout_s, MOST_S)
    async with take_turn(), _open_pair(timeout_s) as (candidate, driver):
        feeding = asyncio.gather(_feed(candidate, grader.prefix, text), _feed(driver, grader.tests))
        try:
            await _wait_until_ready(candidate, driver)
            async with asyncio.timeout(timeout_s):
                found = await _read_report(driver)
        except TimeoutError:
            return Verdict(verifier="unit_tests", quality=0.0, detail=f"over {timeout_s:g} s")
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
    detail = found.detail if found is not None else "the tests ended early, or used too much memory or time"
    return Verdict(verifier="unit_tests", quality=float(found is not None and found.passed), detail=detail)


@contextlib.asynccontextmanager
async def _open_pair(timeout_s: float) -> AsyncIterator[tuple[_Process, _Process]]:
    """Open the jails of the code and of its tests, with a private connection between them."""
    ours, theirs = socket.socketpair()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(ours)
        stack.enter_context(theirs)
        limits = JailLimits()
        pair = []
        for name, end in (("candidate", ours), ("driver", theirs)):
            python = [f"{INSIDE}/{name}.py", str(end.fileno()), str(limits.memory_bytes), str(round(timeout_s) + 1)]
            pair.append(await stack.enter_async_context(open_jail(python, limits, pass_fds=(end.fileno(),))))
            end.close()  # so that each side sees the other's end
        yield pair[0], pair[1]


async def _feed(child: _Process, *texts: str) -> None:
    """Write a process's input before it starts. A process that has ended reads nothing."""
    assert child.stdin is not None
    with contextlib.suppress(ConnectionError):
        for text in texts:
            packed = text.encode("utf-8", "surrogatepass")
            child.stdin.write(len(packed).to_bytes(8, "big") + packed)
            await child.stdin.drain()


async def _wait_until_ready(candidate: _Process, driver: _Process) -> None:
    """Wait until both jails run, before any code of the reply runs.

    Raises:
        NoJail: a jail did not start. The error quotes its output.
    """
    try:
        async with asyncio.timeout(START_S):
            found = await _read_report(driver)
    except TimeoutError:
        raise NoJail(f"it did not start within {START_S:g} s") from None
    if found is None or not found.ready:
        raise NoJail(f"it did not start: {await _find_fault((candidate, driver))}")


async def _find_fault(children: Sequence[_Process]) -> str:
    """Return the last line of a process that failed to start."""
    for child in children:
        assert child.stderr is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):  # a process that started writes nothing
                said = (await child.stderr.read(LONGEST_REPORT)).decode("utf-8", "replace").strip().splitlines()
                if said:
                    return said[-1][:200]
    return "it gave no reason"


async def _read_report(driver: _Process) -> _Report | None:
    """Read the next line of the tests' process; None if there is none."""
    assert driver.stdout is not None
    try:
        return msgspec.json.decode(await driver.stdout.readuntil(b"\n"), type=_Report)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, msgspec.MsgspecError):
        return None
