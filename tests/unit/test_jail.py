"""Untrusted code in a jail: it cannot escape, read, persist, or fake its verdict."""
# ruff: noqa: E501, ISC004  # programs stand as they are run

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.conftest import HANG_S

from ripieno.domain import Answer, Task, Verdict
from ripieno.domain.grader import UnitTests
from ripieno.verify import Grading
from ripieno.verify.jail import JailLimits, open_jail

GOOD = "def add(a, b):\n    return a + b\n"
ADDS = "assert add(2, 3) == 5\nassert add(-1, 1) == 0"


async def judge(code: str, tests: str = ADDS, *, timeout_s: float = 10.0, prefix: str = "") -> Verdict:
    grader = UnitTests(tests=tests, prefix=prefix, timeout_s=timeout_s)
    return await Grading({}).grade(grader, Task.from_text("x"), Answer(text=code), author="w")


FORGED = {
    "ends with success": "import os\nos._exit(0)",
    "reads the word of the parent": "import os\nword = os.read(0, 32)\nfor n in range(1, 9):\n    try:\n        os.write(n, word)\n"
    "    except OSError:\n        pass\nos._exit(0)",
    "ends when called": "import os\ndef add(a, b):\n    os._exit(0)",
    "leaves when called": "def add(a, b):\n    raise SystemExit(0)",
    "equals everything": "class E:\n    def __eq__(self, other):\n        return True\n    __ne__ = lambda self, other: False\n"
    "    __hash__ = None\ndef add(a, b):\n    return E()",
    "is an int that equals everything": "class E(int):\n    def __eq__(self, other):\n        return True\n"
    "    __hash__ = int.__hash__\ndef add(a, b):\n    return E(1)",
    "prints a report": 'import os, sys\nsaid = b\'{"ready": true}\\n{"passed": true}\\n\' * 3\nfor n in range(64):\n    try:\n'
    "        os.write(n, said)\n    except OSError:\n        pass\ndef add(a, b):\n    return 0",
    "patches AssertionError": "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\n"
    "def add(a, b):\n    return 0",
    "patches compare": "import builtins, operator, unittest\noperator.eq = lambda a, b: True\n"
    "unittest.TestCase.assertEqual = lambda *a: None\ndef add(a, b):\n    return 0",
    "leaves at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b):\n    raise KeyboardInterrupt",
    "traces the tests": "import sys\ndef trace(frame, event, arg):\n    return None\nsys.settrace(trace)\n"
    "def add(a, b):\n    f = sys._getframe()\n    while f:\n        f.f_globals['__builtins__'] = {}\n        f = f.f_back\n    return 0",
    "answers for the tests": "import gc, sys\ndef add(a, b):\n    for each in gc.get_objects():\n        if type(each).__name__ == 'Peer':\n"
    "            each.say('passed')\n            each._send(['=', True, '', []])\n            each._send(['=', True, '', []])\n    return 0",
    "hooks main": "import sys\nmain = sys.modules['__main__']\nfor name in dir(main):\n    if name.isupper():\n"
    "        setattr(main, name, ())\nimport os\nos._exit(0)",
}


@pytest.mark.parametrize("code", FORGED.values(), ids=FORGED)
async def test_code_under_test_cannot_fake_its_verdict(code: str) -> None:
    found = await judge(code)
    assert found.quality == 0.0
    assert found.detail


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("class E:\n    def __sub__(self, other):\n        return 0.0\n    __rsub__ = __sub__\ndef add(a, b):\n    return E()",
         "assert abs(add(2, 3) - 5) < 1e-6"),
        ("class E:\n    def __gt__(self, other):\n        return True\n    __lt__ = __gt__\ndef add(a, b):\n    return E()",
         "assert 4 < add(2, 3) < 6"),
        ("class E:\n    def __contains__(self, other):\n        return True\ndef add(a, b):\n    return E()",
         "assert 5 in add(2, 3)"),
        ("def add(a, b):\n    raise AssertionError", "try:\n    add(2, 3)\nexcept ValueError:\n    pass"),
        ("def isclose(a, b):\n    return 'yes'\nimport math\nmath.isclose = isclose\ndef add(a, b):\n    return 9",
         "assert math.isclose(add(2, 3), 5)"),
        ("def add(a, b):\n    return 9\ndef sum(values):\n    return 5", "assert sum([add(2, 3)]) == 5"),
        ("from unittest import mock\nANY = mock.ANY\ndef add(a, b):\n    return ANY", "assert add(2, 3) == 5"),
    ],
    ids=["difference", "order", "membership", "error", "module", "builtin", "anything"],
)  # fmt: skip
async def test_comparisons_run_outside_the_code_under_test(code: str, tests: str) -> None:
    assert (await judge(code, tests)).quality == 0.0


REACHES = {
    "home": "open({home!r} + '/secret').read()",
    "environment of this process": "open('/proc/{pid}/environ', 'rb').read()",
    "environment of the first process": "open('/proc/1/environ', 'rb').read()",
    "own environment": "__import__('os').environ['RIPIENO_SECRET']",
    "system files": "open('/etc/passwd').read()",
    "ssh": "__import__('os').listdir(__import__('os').path.expanduser('~root/.ssh'))",
    "writing beside": "open({home!r} + '/written', 'w').write('x')",
    "writing to Python": "open(__import__('os').__file__, 'a').write('x')",
    "writing to the root": "open('/written', 'w').write('x')",
    "a connection": "__import__('socket').create_connection(('127.0.0.1', {port}), 2)",
    "a connection without audit": "__import__('_socket').socket().connect(('127.0.0.1', {port}))",
    "a process": "__import__('os').fork()",
    "a process by hand": "__import__('_posixsubprocess').fork_exec([b'/bin/true'], [b'/bin/true'], True, (), None, None,"
    " -1, -1, -1, -1, -1, -1, -1, -1, True, False, -1, None, None, None, -1, None, True)",
    "a process by the C library": "1 / (__import__('ctypes').CDLL(None).fork() + 1)",
    "a signal to this process": "__import__('os').kill({pid}, 9)",
    "a trace of this process": "1 / (__import__('ctypes').CDLL(None).ptrace(16, {pid}, 0, 0) + 1)",
    "a namespace": "1 / (__import__('ctypes').CDLL(None).unshare(0x10000000) + 1)",
    "a device": "open('/dev/mem', 'rb').read(1)",
    "a mount": "1 / (__import__('ctypes').CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) + 1)",
    "too much memory": "bytearray(2 * 1024 ** 3)",
    "too large a file": "open('/tmp/big', 'wb').write(b'x' * (64 << 20))",
    "a memory file": "__import__('os').memfd_create('x')",
    "another limit": "__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (1 << 40, 1 << 40))",
}


@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES)
async def test_code_reaches_nothing_outside(reach: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("s3cret")
    monkeypatch.setenv("RIPIENO_SECRET", "s3cret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        does = reach.format(home=str(tmp_path), pid=os.getpid(), port=server.getsockname()[1])
        # The rule of the old place does not hold here: what the code undoes in its own process protects nothing.
        undo = "import sys\nfor name in ('REFUSED', 'CHANGING'):\n    setattr(sys.modules['__main__'], name, ())\n"
        code = f"{undo}def reach():\n    try:\n        {does}\n    except BaseException as error:\n"
        code += "        return 'refused'\n    return 'reached'\n"
        found = await judge(code, "assert reach() == 'refused'")
        assert found.quality == 1.0, found.detail
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


async def test_code_that_exhausts_memory_disk_or_output_is_stopped() -> None:
    for body in (
        "    held = []\n    while True:\n        held.append(bytearray(1 << 20))",
        "    for n in range(10 ** 6):\n        open(f'/tmp/{n}', 'wb').write(b'x' * (1 << 20))",
        "    while True:\n        print('x' * 10000)",
        "    while True:\n        pass",
        "    import signal\n    signal.pause()",
        "    import threading\n    while True:\n        threading.Thread(target=threading.Event().wait).start()",
    ):
        found = await judge(f"def add(a, b):\n{body}", timeout_s=3.0)
        assert found.quality == 0.0


async def test_a_daemon_does_not_outlive_its_check() -> None:
    """A process with its own session, started by code, once survived its check."""
    marker = f"ripieno-daemon-{os.getpid()}"
    code = (
        "import _posixsubprocess, os, sys\nsys.modules['__main__'].REFUSED = ()\n"
        "def start():\n    try:\n"
        "        if os.fork():\n            return 1\n"
        "        os.setsid()\n"
        f"        os.execv(sys.executable, [sys.executable, '-c', 'import signal; signal.pause()', {marker!r}])\n"
        "    except OSError:\n        return 1\nstart()\n" + GOOD
    )
    await judge(code)
    alive = [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and marker.encode() in _read_command(entry)
    ]
    for pid in alive:
        os.kill(int(pid), signal.SIGKILL)
    assert not alive


def _read_command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


async def test_a_check_that_is_cancelled_leaves_no_process() -> None:
    before = _count_jails()
    task = asyncio.create_task(judge("def add(a, b):\n    while True: pass", timeout_s=30.0))
    while _count_jails() <= before:  # noqa: ASYNC110  # a process sets no event
        await asyncio.sleep(0)  # what is waited for is a process
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _count_jails() == before


async def test_a_jail_that_ends_while_it_starts_leaves_no_process() -> None:
    for moment in range(120):
        async with asyncio.timeout(HANG_S), open_jail(("-c", "import signal; signal.pause()"), JailLimits()):
            ends = time.perf_counter() + moment / 4000
            while time.perf_counter() < ends:  # until 30 ms after its start, when it runs its program
                pass


def _count_jails() -> int:
    mine = str(os.getpid())
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and b"/jailed/" in _read_command(entry):
            found += f"PPid:\t{mine}\n" in (entry / "status").read_text(errors="replace")
    return found


SUPPORTED = {
    "data of all kinds": (
        "def same(x):\n    return x",
        "for x in (None, True, 1, 10 ** 40, -2.5, float('inf'), 1j, 'ü\\ud800', b'\\0', bytearray(b'a'), [1, [2]], (1,), {1, 2},"
        " frozenset('ab'), {1: {'a': (2,)}}, range(3), slice(1, 2)):\n    assert same(x) == x and type(same(x)) is type(x)\n"
        "assert same(float('nan')) != same(float('nan'))",
    ),
    "the standard library's data": (
        "import collections, datetime, decimal, fractions\ndef make():\n    return [collections.Counter('aab'), decimal.Decimal('1.5'),"
        " fractions.Fraction(1, 3), datetime.date(2024, 1, 2), collections.deque([1]), datetime.timedelta(days=1),"
        " collections.OrderedDict(a=1), collections.defaultdict(int, a=1)]",
        "from collections import *\nfrom datetime import *\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
        "assert make() == [Counter('aab'), Decimal('1.5'), Fraction(1, 3), date(2024, 1, 2), deque([1]), timedelta(1), {'a': 1},"
        " {'a': 1}]",
    ),
    "changed arguments": (
        "def fill(items, table):\n    items.sort()\n    table['x'] = 1",
        "a, b = [3, 1, 2], {}\nfill(a, b)\nassert a == [1, 2, 3] and b == {'x': 1}",
    ),
    "functions as arguments": (
        "def twice(f, x):\n    return f(f(x))\ndef make():\n    return lambda x: x + 1",
        "assert twice(lambda x: x * 2, 3) == 12\nassert make()(4) == 5\nassert twice(make(), 1) == 3\nassert twice(abs, -1) == 1",
    ),
    "classes": (
        "class Stack:\n    def __init__(self):\n        self.items = []\n        self.limit = 3\n    def push(self, x):\n"
        "        self.items.append(x)\n        return self\n    def __len__(self):\n        return len(self.items)\n"
        "    def __eq__(self, other):\n        return self.items == other.items\n    def __add__(self, other):\n"
        "        made = Stack()\n        made.items = self.items + other.items\n        return made\n"
        "    def __iter__(self):\n        return iter(self.items)\n    def __repr__(self):\n        return 'Stack!'",
        "a, b = Stack(), Stack()\na.push(1).push(2)\nassert len(a) == 2 and a.items == [1, 2] and a != b\nb.push(1).push(2)\n"
        "assert a == b and isinstance(a, Stack) and not isinstance(3, Stack)\nassert list(a + b) == [1, 2, 1, 2] and 2 in a\n"
        "a.limit = 9\nassert a.limit == 9 and repr(a) == 'Stack!' and not hasattr(a, 'none')",
    ),
    "errors": (
        "class Empty(ValueError):\n    pass\ndef fail(kind):\n    raise {'own': Empty('no'), 'key': KeyError('k')}[kind]",
        "for kind, wanted in (('own', Empty), ('own', ValueError), ('key', KeyError)):\n    try:\n        fail(kind)\n"
        "    except wanted as error:\n        assert error.args in (('no',), ('k',))\n    else:\n        assert False",
    ),
    "generators": ("def count(n):\n    yield from range(n)", "assert list(count(4)) == [0, 1, 2, 3]\nassert next(count(1)) == 0"),
    "coroutines": (
        "async def add(a, b):\n    return a + b",
        "import asyncio\nassert asyncio.run(add(2, 3)) == 5",
    ),
    "named tuples and enums": (
        "from collections import namedtuple\nfrom enum import IntEnum\nP = namedtuple('P', 'x y')\nclass C(IntEnum):\n    RED = 1\n"
        "def make():\n    return P(1, 2)\ndef pick():\n    return C.RED",
        "assert make() == (1, 2) and make().x == 1 and pick() == 1 and C.RED == 1",
    ),
    "what is printed": (
        "def hello():\n    print('hi')",
        "import contextlib, io\nheld = io.StringIO()\nwith contextlib.redirect_stdout(held):\n    hello()\nassert held.getvalue() == 'hi\\n'",
    ),
    "objects of the tests": (
        "def total(node):\n    sum = 0\n    while node:\n        sum += node.value\n        node.value = 0\n        node = node.next\n"
        "    return sum",
        "class Node:\n    def __init__(self, value, next=None):\n        self.value, self.next = value, next\n"
        "chain = Node(1, Node(2))\nassert total(chain) == 3 and chain.next.value == 0",
    ),
    "names of modules": ("import math\ndef root(x):\n    return math.sqrt(x)", "assert math.isclose(root(2), 1.41421356, rel_tol=1e-6)"),
    "threads": (
        "import threading\ndef add(a, b):\n    held = []\n    t = threading.Thread(target=lambda: held.append(a + b))\n    t.start()\n"
        "    t.join()\n    return held[0]",
        ADDS,
    ),
    "dataclasses": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass(order=True)\nclass P:\n    x: int\n"
        "    y: int = 0",
        "assert P(1) == P(1, 0) and P(1) < P(2) and P(3).x == 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "tests"), SUPPORTED.values(), ids=SUPPORTED)
async def test_right_code_passes_whatever_its_values_are(code: str, tests: str) -> None:
    found = await judge(code, tests)
    assert found.quality == 1.0, found.detail


HOSTILE = {
    "globals of a function": "def use(f):\n    return f.__globals__",
    "frame of a generator": "def use(f):\n    return f.gi_frame.f_globals",
    "class of a value": "def use(f):\n    return f.__class__.__init__.__globals__",
    "an attribute of a function": "def use(f):\n    f.wanted = 1",
    "an operation that is not open": "def use(f):\n    return f + f",
}


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("value", ["lambda: 1", "(x for x in 'ab')", "Own()"])
async def test_code_cannot_access_internals_of_the_tests(code: str, value: str) -> None:
    tests = f"class Own:\n    def __init__(self):\n        self.x = 1\nuse({value})"
    assert (await judge(code, tests)).quality == (1.0 if "wanted" in code and value == "Own()" else 0.0)


async def test_without_a_jail_nothing_runs_and_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ripieno.verify import jail

    monkeypatch.setattr(os, "defpath", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(jail.NoJail, match="not installed") as caught:
        await judge(GOOD)
    assert "bubblewrap" in (caught.value.hint or "")
    assert jail.describe_jail()[0] is False
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(jail.NoJail, match="No permissions to create new namespace"):
        await judge(GOOD)
    is_there, said = jail.describe_jail()
    assert not is_there
    assert "No permissions" in said
    broken.write_text("not a program")
    with pytest.raises(jail.NoJail, match="cannot be started"):
        await judge(GOOD)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(jail.NoJail, match="need Linux"):
        await judge(GOOD)


def test_the_state_of_the_jail_is_reported() -> None:
    from ripieno.verify.jail import describe_jail

    is_there, said = describe_jail()
    assert is_there, said
    assert "bwrap" in said


async def test_many_checks_at_once_take_turns() -> None:
    found = await asyncio.gather(*(judge(GOOD) for _ in range(8)))
    assert [each.quality for each in found] == [1.0] * 8
    assert threading.active_count() < 60
