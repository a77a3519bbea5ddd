"""Stand-ins for objects of the other side.

What is compared with data of the tests is compared here, never by the object itself: an object that claims to be equal
to everything equals nothing but itself. Operators of two such objects are left to them.
"""

from collections.abc import Callable
from typing import Any, Protocol

PLAIN_BASES: tuple[Any, ...] = (str, int, float, list, tuple, dict, set, frozenset, bytes)
"""Data whose subclasses are compared as what they hold, whatever their class says about equality."""
_BY_NAME = {base.__name__: base for base in PLAIN_BASES}


class Asks(Protocol):
    """What a stand-in needs of the connection."""

    def ask(self, does: str, *arguments: Any) -> Any:
        """Have the other side do something."""
        ...


class Remote:
    """Base of the stand-ins that hold no data."""

    _peer: Asks

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        return self._peer.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set", self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: D102  # a stand-in has no text of its own
        return self._peer.ask("call", self, list(arguments), named)

    def __contains__(self, value: Any) -> bool:
        return any(each is value or each == value for each in self)  # type: ignore[attr-defined]  # made below

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        return self._peer.ask("operate", "eq", self, other) if isinstance(other, Remote) else NotImplemented

    def __ne__(self, other: object) -> Any:
        if self is other:
            return False
        return self._peer.ask("operate", "ne", self, other) if isinstance(other, Remote) else NotImplemented

    def __hash__(self) -> int:
        found = self._peer.ask("operate", "hash", self)
        return found if type(found) is int else 0

    def __exit__(self, *error: object) -> None:
        self._peer.ask("operate", "leave", self)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Remote | Held) and self._peer.ask("operate", "isinstance", instance, self) is True


class Held:
    """Base of the stand-ins that hold data."""


def _unary(name: str, kind: type | None = None) -> Callable[..., Any]:
    def operate(self: Remote, *arguments: Any) -> Any:
        found = self._peer.ask("operate", name, self, *arguments)
        if kind is not None and type(found) is not kind:
            raise TypeError(f"{name}() of the code under test gave no {kind.__name__}")
        return found

    return operate


def _compare(name: str) -> Callable[[Remote, Any], Any]:
    def operate(self: Remote, other: Any) -> Any:
        return self._peer.ask("operate", name, self, other) if isinstance(other, Remote) else NotImplemented

    return operate


def _combine(name: str, *, is_reflected: bool) -> Callable[[Remote, Any], Any]:
    def operate(self: Remote, other: Any) -> Any:
        pair = (other, self) if is_reflected else (self, other)
        found = self._peer.ask("operate", name, *pair)
        if not isinstance(other, Remote) and not isinstance(found, Remote):
            # An operand out of the tests must not come back as a finding: `abs(result - 3) < 1e-6` would hold for
            # an object that gives 0 for each difference.
            raise TypeError(f"{name} of an object of the code under test with plain data must give such an object")
        return found

    return operate


for _name, _kind in (
    *(
        (name, None)
        for name in ("iter", "next", "getitem", "setitem", "delitem", "neg", "pos", "abs", "invert", "round", "enter")
    ),
    ("len", int),
    ("index", int),
    ("int", int),
    ("float", float),
    ("bool", bool),
    ("str", str),
    ("repr", str),
):
    setattr(Remote, f"__{_name}__", _unary(_name, _kind))
for _name in ("lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_name}__", _compare(_name))
for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
):
    _called = f"{_name}_" if _name in ("and", "or") else _name
    setattr(Remote, f"__{_name}__", _combine(_called, is_reflected=False))
    setattr(Remote, f"__r{_name}__", _combine(_called, is_reflected=True))


def make_remote(peer: Asks) -> Remote:
    """A stand-in for an object that holds no plain data."""
    made = Remote()
    object.__setattr__(made, "_peer", peer)
    return made


def make_plain(peer: Asks, base: str, value: Any) -> Any:
    """Data of a class of the other side: it is its data, with the attributes of that class.

    Raises:
        TypeError: the data is of another kind than was said.
    """
    kind = _BY_NAME[base]
    if type(value) is not kind:
        raise TypeError(base)

    def find(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return peer.ask("get", self, name)

    return type(base, (kind, Held), {"__getattr__": find})(value)


def await_there(peer: Asks, number: int) -> Any:
    """A coroutine that has a coroutine of the other side run to its end."""

    async def run() -> Any:
        return peer.ask("operate", "await", made)

    made = run()
    return made
