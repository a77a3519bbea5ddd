"""Proxies for objects of the other side.

Comparisons with data of the tests happen here, never in the object itself: an object that claims to equal everything
equals only itself. Operators between two such objects run on their side.
"""

from collections.abc import Callable
from typing import Any, Protocol

PLAIN_BASES: tuple[Any, ...] = (str, int, float, list, tuple, dict, set, frozenset, bytes)
"""Data types whose subclasses are compared by content, whatever their class says about equality."""
_BY_NAME = {base.__name__: base for base in PLAIN_BASES}


class Asks(Protocol):
    """The part of the connection that a proxy needs."""

    def ask(self, does: str, *arguments: Any) -> Any:
        """Let the other side do something."""
        ...


class Remote:
    """Base of the proxies without data."""

    _peer: Asks

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        return self._peer.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set", self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: D102  # a proxy has no docstring
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
        is_proxy = isinstance(instance, Remote | DataProxy)
        return is_proxy and self._peer.ask("operate", "isinstance", instance, self) is True


class DataProxy:
    """Base of the proxies with data."""


def _unary(name: str, kind: type | None = None) -> Callable[..., Any]:
    def operate(self: Remote, *arguments: Any) -> Any:
        found = self._peer.ask("operate", name, self, *arguments)
        if kind is not None and type(found) is not kind:
            raise TypeError(f"{name}() of the code under test did not return {kind.__name__}")
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
            # An operation with the tests' data must not return plain data: `abs(result - 3) < 1e-6` would hold for
            # an object that returns 0 for each difference.
            raise TypeError(f"{name} of an object of the code under test with plain data must return such an object")
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
    """Make a proxy for an object without plain data."""
    made = Remote()
    object.__setattr__(made, "_peer", peer)
    return made


def make_plain(peer: Asks, base: str, value: Any) -> Any:
    """Make a copy of data of a class of the other side, with that class's attributes.

    Raises:
        TypeError: the data has another type than stated.
    """
    kind = _BY_NAME[base]
    if type(value) is not kind:
        raise TypeError(base)

    def find(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return peer.ask("get", self, name)

    return type(base, (kind, DataProxy), {"__getattr__": find})(value)


def await_there(peer: Asks, number: int) -> Any:
    """Make a coroutine that runs a coroutine of the other side to its end."""

    async def run() -> Any:
        return peer.ask("operate", "await", made)

    made = run()
    return made
