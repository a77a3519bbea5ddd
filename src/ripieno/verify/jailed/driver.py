"""The side of the tests: it runs them against proxies of the code under test, and alone reports the result."""

import ast
import builtins
import json
import os
import sys
from typing import Any

sys.path.insert(0, __file__.rpartition("/ripieno/")[0])

from ripieno.verify.jailed.start import confine, read_frame, silence  # the path comes first
from ripieno.verify.jailed.values import Gone
from ripieno.verify.jailed.wire import Peer


def main() -> None:
    """Confine this process, wait for the other side, run the tests, and report."""
    channel, memory, cpu = (int(argument) for argument in sys.argv[1:4])
    confine(memory_bytes=memory, cpu_s=cpu)
    tests = read_frame(sys.stdin.buffer).decode("utf-8", "surrogatepass")
    report = os.dup(1)
    silence()
    peer = Peer(os.fdopen(channel, "rb", closefd=False), channel, home="tests")
    try:
        peer.hear()
    except Gone:
        return
    os.write(report, b'{"ready": true}\n')
    os.write(report, json.dumps(_judge(peer, tests)).encode() + b"\n")


def _judge(peer: Peer, tests: str) -> dict[str, Any]:
    try:
        said = peer.hear()
        if said != "loaded":
            return {"passed": False, "detail": said[:200]}
        tree = ast.parse(tests)
        space = {"__name__": "tests"} | _find_names(peer, tree)
        peer.give_output = lambda text: sys.stdout.write(text) if text else None
        exec(compile(tree, "tests.py", "exec"), space)  # noqa: S102  # the jail exists for this
        peer.ask("find", "__name__")  # fails if the code has ended meanwhile
    except Gone:
        return {"passed": False, "detail": "the code ended, or broke its connection to the tests"}
    except BaseException as error:  # noqa: BLE001  # any exception means that the tests failed
        return {"passed": False, "detail": f"{type(error).__name__}: {error}"[:200]}
    return {"passed": True, "detail": ""}


def _find_names(peer: Peer, tree: ast.Module) -> dict[str, Any]:
    """Find the names that the tests use and do not define: of the code under test, and of unimported modules."""
    used, as_modules, called = set(), set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            as_modules.add(node.value.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called.add(node.func.id)
    is_module = {name for name in as_modules - called if name in sys.stdlib_module_names}
    found: dict[str, Any] = {name: __import__(name) for name in is_module & used}
    own = _ask_for(peer, used - set(dir(builtins)) - is_module)
    # A built-in name is the code's only if it defines no other: tests of a function that is called `sum`.
    return found | (own or _ask_for(peer, used & set(dir(builtins))))


def _ask_for(peer: Peer, names: set[str]) -> dict[str, Any]:
    found = {}
    for name in sorted(names):
        try:
            found[name] = peer.ask("find", name)
        except KeyError:
            continue
    return found


if __name__ == "__main__":
    main()
