"""Codec: the values that cross between the tests and the code under test, as JSON.

A frame can only make plain values, proxies of the other side's objects, and names from a short list of the standard
library.
"""

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

from ripieno.verify.jailed.proxies import PLAIN_BASES, Asks, await_there, make_plain, make_remote

TRUSTED = frozenset(
    [
        "bisect",
        "builtins",
        "cmath",
        "collections",
        "copy",
        "datetime",
        "decimal",
        "fractions",
        "functools",
        "heapq",
        "itertools",
        "json",
        "math",
        "operator",
        "random",
        "re",
        "statistics",
        "string",
        "typing",
    ]
)
"""Modules whose functions and classes cross by name. Each side uses its own."""
LARGEST_PLAIN_INT = 1 << 62
_CONTAINERS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "f"}
_MAKERS: dict[str, Callable[[Any], Any]] = {"l": list, "t": tuple, "s": set, "f": frozenset}


class Gone(BaseException):
    """The other side has ended, or violated the protocol."""


class Codec:
    """Encodes values for the other side, and decodes those of its frames.

    Args:
        home: name of the module of this side's own classes.
        is_open: whether the other side may get every object; if not, only functions, iterators and own classes.
    """

    def __init__(self, peer: Asks, *, home: str, is_open: bool) -> None:
        self._peer = peer
        self._home = home
        self._is_open = is_open
        self._mine: list[Any] = []
        self._numbers: dict[int, int] = {}
        """Number of each object that the other side knows, by `id`. The objects live as long as the connection."""
        self._theirs: dict[int, Any] = {}
        self._proxied: dict[int, int] = {}
        """The other side's number of a local proxy, by the proxy's `id`."""
        self._kept: list[Any] = []

    def encode(self, value: Any) -> Any:
        """Encode a value as JSON.

        Raises:
            TypeError: the tests' side may not pass it on.
        """
        kind = type(value)
        if value is None or kind in (bool, str, float):
            return value
        if kind is int:
            return value if -LARGEST_PLAIN_INT < value < LARGEST_PLAIN_INT else ["i", hex(value)]
        if kind in _CONTAINERS:
            return [_CONTAINERS[kind], [self.encode(each) for each in value]]
        if kind is dict:
            return ["d", [[self.encode(key), self.encode(each)] for key, each in value.items()]]
        if kind in (bytes, bytearray):
            return ["b" if kind is bytes else "B", value.hex()]
        if kind is complex:
            return ["c", value.real, value.imag]
        if kind is range:
            return ["r", value.start, value.stop, value.step]
        if kind is slice:
            return ["S", *[self.encode(each) for each in (value.start, value.stop, value.step)]]
        return self._encode_object(value, kind)

    def _encode_object(self, value: Any, kind: type) -> Any:
        theirs = self._proxied.get(id(value))
        if theirs is not None:
            return ["y", theirs]
        shipped = SHIPPED.get(f"{kind.__module__}.{kind.__qualname__}")
        if shipped is not None and getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind:
            return ["x", f"{kind.__module__}.{kind.__qualname__}", [self.encode(each) for each in shipped(value)]]
        named = _name_trusted(value)
        if named is not None:
            return ["n", *named]
        if isinstance(value, type) and issubclass(value, BaseException):
            bases = [self.encode(base) for base in value.__bases__ if issubclass(base, BaseException)]
            return ["E", self._number(value), value.__name__, bases]
        if isinstance(value, BaseException):
            return self.encode_error(value)
        if not self._is_open and not (callable(value) or kind.__module__ == self._home or hasattr(kind, "__next__")):
            raise TypeError(f"a value of type {kind.__name__} cannot be passed to the code under test")
        if isinstance(value, types.CoroutineType):
            return ["o", self._number(value), "await", None]
        for base in PLAIN_BASES:
            if isinstance(value, base):
                return ["o", self._number(value), base.__name__, self.encode(_reduce(value, base))]
        return ["o", self._number(value), "", None]

    def _number(self, value: Any) -> int:
        """Return the number by which the other side knows an object of this side."""
        known = self._numbers.get(id(value))
        if known is None:
            known = self._numbers[id(value)] = len(self._mine)
            self._mine.append(value)
        return known

    def encode_error(self, error: BaseException) -> Any:
        """Encode an exception. Arguments that cannot be passed on become its text."""
        try:
            arguments = [self.encode(each) for each in error.args]
        except (TypeError, RecursionError):
            arguments = [str(error)]
        return ["X", self.encode(type(error)), arguments]

    def decode(self, raw: Any) -> Any:
        """Decode the value of a frame.

        Raises:
            Gone: the frame has no valid value.
        """
        if raw is None or isinstance(raw, bool | str | float | int):
            return raw
        try:
            return DECODERS[raw[0]](self, *raw[1:])
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, ImportError) as error:
            raise Gone from error

    def decode_all(self, raws: list[Any]) -> list[Any]:
        """Decode the values of several frames."""
        return [self.decode(raw) for raw in raws]

    def decode_shipped(self, name: str, raws: list[Any]) -> Any:
        """Decode a value of a copied type of the standard library."""
        if name not in SHIPPED:
            raise ValueError(name)
        module, _, kind = name.partition(".")
        return getattr(importlib.import_module(module), kind)(*self.decode_all(raws))

    def decode_named(self, module: str, name: str) -> Any:
        """Decode a function, class or module of the standard library."""
        if module not in TRUSTED:
            raise ValueError(module)
        loaded = importlib.import_module(module)
        found = getattr(loaded, name) if name else loaded
        if name and _name_trusted(found) is None:
            raise ValueError(name)
        return found

    def decode_mine(self, number: int) -> Any:
        """Decode an object of this side that the other side knows."""
        if not 0 <= number < len(self._mine):
            raise ValueError(number)
        return self._mine[number]

    def decode_theirs(self, number: int, base: str, raw: Any) -> Any:
        """Decode a proxy of an object of the other side: the same one each time, unless it holds data."""
        known = self._theirs.get(number)
        if known is not None and not base:
            return known
        if base == "await":
            made: Any = await_there(self._peer, number)
        elif base:
            made = make_plain(self._peer, base, self.decode(raw))
        else:
            made = self._theirs[number] = make_remote(self._peer)
        return self._know(made, number)

    def decode_error_class(self, number: int, name: str, bases: list[Any]) -> Any:
        """Decode an error class of the other side. It can be caught by its bases."""
        known = self._theirs.get(number)
        if known is None:
            parents = tuple(base for base in self.decode_all(bases) if issubclass(base, BaseException))
            known = self._theirs[number] = type(str(name), parents or (Exception,), {})
            self._know(known, number)
        return known

    def decode_error(self, raw_kind: Any, raws: list[Any]) -> Any:
        """Decode an error of the other side."""
        kind, arguments = self.decode(raw_kind), self.decode_all(raws)
        if not issubclass(kind, BaseException) or issubclass(kind, Gone):
            raise TypeError("not an error")
        error = kind.__new__(kind, *arguments)
        error.args = tuple(arguments)
        for name in ("code", "value"):  # of SystemExit and StopIteration
            if hasattr(error, name):
                setattr(error, name, arguments[0] if arguments else None)
        return error

    def _know(self, made: Any, number: int) -> Any:
        self._proxied[id(made)] = number
        self._kept.append(made)
        return made


def _reduce(value: Any, base: type) -> Any:
    """Convert an instance of a subclass into its base, by the base's own methods."""
    if base in _CONTAINERS:
        return base(base.__iter__(value))  # type: ignore[attr-defined]  # of containers
    if base is dict:
        return dict(dict.items(value))
    if base is str:
        return str.__str__(value)
    if base is bytes:
        return bytes.__getitem__(value, slice(None))
    return float.__add__(value, 0.0) if base is float else int.__add__(value, 0)


def _name_trusted(value: Any) -> tuple[str, str] | None:
    """Return module and name of a function, class or module of the standard library that both sides have."""
    if isinstance(value, types.ModuleType):
        name = value.__name__
        return (name, "") if name in TRUSTED and sys.modules.get(name) is value else None
    if not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return None
    name, stated = getattr(value, "__name__", ""), str(getattr(value, "__module__", ""))
    for module in (stated, stated.removeprefix("_"), "builtins"):
        if module in TRUSTED and getattr(sys.modules.get(module), name, None) is value:
            return module, name
    return None


SHIPPED: dict[str, Callable[[Any], list[Any]]] = {
    "decimal.Decimal": lambda value: [str(value)],
    "fractions.Fraction": lambda value: [value.numerator, value.denominator],
    "datetime.date": lambda value: [value.year, value.month, value.day],
    "datetime.timedelta": lambda value: [value.days, value.seconds, value.microseconds],
    "collections.deque": lambda value: [list(value), value.maxlen],
    "collections.Counter": lambda value: [dict(value)],
    "collections.OrderedDict": lambda value: [list(value.items())],
    "collections.defaultdict": lambda value: [None, dict(value)],
}
"""Types of the standard library that are copied, with their constructor arguments."""

DECODERS: dict[str, Callable[..., Any]] = {
    **{sign: lambda codec, raws, make=make: make(codec.decode_all(raws)) for sign, make in _MAKERS.items()},
    "i": lambda codec, digits: int(digits, 16),
    "d": lambda codec, pairs: {codec.decode(key): codec.decode(value) for key, value in pairs},
    "b": lambda codec, digits: bytes.fromhex(digits),
    "B": lambda codec, digits: bytearray.fromhex(digits),
    "c": lambda codec, real, imaginary: complex(real, imaginary),
    "r": lambda codec, *ends: range(*ends),
    "S": lambda codec, *ends: slice(*codec.decode_all(list(ends))),
    "x": Codec.decode_shipped,
    "n": Codec.decode_named,
    "y": Codec.decode_mine,
    "o": Codec.decode_theirs,
    "E": Codec.decode_error_class,
    "X": Codec.decode_error,
}
