"""The connection between the tests and the code under test. Both sides run it, and neither trusts the other."""

import importlib
import json
import operator
from collections.abc import Callable
from typing import Any, BinaryIO

from ripieno.verify.jailed.start import read_frame, write_frame
from ripieno.verify.jailed.values import Codec, Gone


class Peer:
    """One side of the connection.

    Args:
        reading: stream of the other side's frames.
        writing: file descriptor for frames.
        find: resolves a name of the module under test; only that code's side sets it. That side is open: the other may
            do anything to its objects. On the tests' side, the other may call functions that were passed to it, read
            iterators, and use plain attributes of instances of the tests' own classes.
        home: name of the module of this side's own classes.
    """

    def __init__(self, reading: BinaryIO, writing: int, *, home: str, find: Callable[[str], Any] | None = None) -> None:
        self._reading = reading
        self._writing = writing
        self._find = find
        self._home = home
        self._is_open = find is not None
        self._values = Codec(self, home=home, is_open=self._is_open)
        self.take_output: Callable[[], str] = str
        self.give_output: Callable[[str], object] = bool

    def ask(self, does: str, *arguments: Any) -> Any:
        """Let the other side do something, and answer its requests meanwhile.

        Raises:
            Gone: the other side has ended.
            BaseException: the action raised it there.
        """
        self._send(["?", does, [self._values.encode(argument) for argument in arguments]])
        while True:
            frame = self._receive()
            if frame[0] == "?":
                self._answer(frame)
                continue
            try:
                sign, raw, said, changes = frame
                self.give_output(str(said))
                for place, changed in changes:
                    _restore(arguments[1][place], self._values.decode(changed))
                result = self._values.decode(raw)
            except (LookupError, TypeError, ValueError) as error:
                raise Gone from error
            if sign != "!":
                return result
            raise result if isinstance(result, BaseException) else Gone

    def serve(self) -> None:
        """Answer until the other side ends."""
        while True:
            self._answer(self._receive())

    def say(self, word: str) -> None:
        """Send one word outside of calls."""
        self._send(["word", word])

    def hear(self) -> str:
        """Receive the next word of the other side."""
        frame = self._receive()
        if len(frame) != 2 or frame[0] != "word" or not isinstance(frame[1], str):
            raise Gone
        return frame[1]

    def _send(self, frame: list[Any]) -> None:
        try:
            write_frame(self._writing, json.dumps(frame).encode())
        except OSError as error:
            raise Gone from error

    def _receive(self) -> list[Any]:
        try:
            frame = json.loads(read_frame(self._reading))
        except (OSError, EOFError, ValueError, RecursionError, MemoryError) as error:
            raise Gone from error
        if not isinstance(frame, list) or not frame:
            raise Gone
        return frame

    def _answer(self, frame: list[Any]) -> None:
        try:
            _, does, raw = frame
            arguments = [self._values.decode(each) for each in raw]
            result = self._values.encode(self._do(does, arguments))
            changes = self._find_changed(raw[1][1], arguments[1]) if does == "call" else []
            answer = ["=", result, self.take_output(), changes]
        except Gone:
            raise
        except BaseException as error:  # noqa: BLE001  # an exception of the code under test is its answer
            answer = ["!", self._values.encode_error(error), self.take_output(), []]
        self._send(answer)

    def _do(self, does: str, arguments: list[Any]) -> Any:
        match does, arguments:
            case "call", [function, list() as given, dict() as named]:
                return function(*given, **named)
            case "operate", [str() as name, one, *others]:
                may = self._is_open or self._is_own(one) or (name in READING and hasattr(type(one), "__next__"))
                if not may:
                    raise TypeError(f"{name} of a value of the tests is not open to the code under test")
                return OPERATIONS[name](one, *others)
            case "get" | "set", [one, str() as name, *value]:
                if not self._is_open and not (self._is_own(one) and not name.startswith("_")):
                    raise AttributeError(f"{name} of a value of the tests is not open to the code under test")
                return getattr(one, name) if does == "get" else setattr(one, name, value[0])
            case "find", [str() as name] if self._find is not None:
                return self._find(name)
            case _:
                raise Gone

    def _is_own(self, one: Any) -> bool:
        """Return whether a value is an instance of a class of the tests, which exposes nothing else."""
        return type(one).__module__ == self._home and not isinstance(one, type)

    def _find_changed(self, raw: list[Any], given: list[Any]) -> list[Any]:
        """Return the arguments that a call changed in place, with their new values."""
        changed = []
        for place, (before, value) in enumerate(zip(raw, given, strict=True)):
            if type(value) in (list, dict, set, bytearray):
                after = self._values.encode(value)
                if after != before:
                    changed.append([place, after])
        return changed


def _restore(target: Any, now: Any) -> None:
    """Copy the changes of a call into a container of the tests."""
    if type(target) is not type(now):
        raise TypeError
    if isinstance(target, list | bytearray):
        target[:] = now
    else:
        target.clear()
        target.update(now)


READING = frozenset({"iter", "next", "bool"})
"""Operations that the code under test may use on an iterator of the tests."""

OPERATIONS: dict[str, Callable[..., Any]] = {
    "iter": iter,
    "next": next,
    "len": len,
    "str": str,
    "repr": repr,
    "bool": bool,
    "int": int,
    "float": float,
    "hash": hash,
    "round": round,
    "divmod": divmod,
    "isinstance": isinstance,
    "enter": lambda one: type(one).__enter__(one),
    "leave": lambda one: type(one).__exit__(one, None, None, None),
    "await": lambda one: importlib.import_module("asyncio").run(one),
}
OPERATIONS |= {name: getattr(operator, name) for name in (
    "getitem", "setitem", "delitem", "eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert", "index", "add",
    "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift",
)}  # fmt: skip
