"""Places: the line of a key in a TOML file, and the keys that hold the place of a file."""

import tomllib
from collections.abc import Mapping, Sequence

PATHS = (
    ("home",),
    ("gateway", "tls_cert"),
    ("gateway", "tls_key"),
    ("ledger", "outbox"),
    ("route", "rules"),
    ("conductor", "checkpoint"),
    ("conductor", "head"),
)
"""Keys whose values are paths, relative to the folder of the file."""


def find_line(text: str, path: Sequence[str]) -> int | None:
    """Find the first line of a key, or of the header of a table.

    Args:
        text: a whole TOML document.
        path: the names of the tables, then the key.

    Returns:
        The line, counted from 1; None if the document does not hold the key.
    """
    lines = text.split("\n")
    begin = 0
    ends = [number for number, line in enumerate(lines) if line.lstrip().startswith("[") and number > 0]
    for end in (*ends, len(lines)):
        tree = _parse(lines[begin:end])
        if tree is None:
            continue  # the bracket is part of a value of several lines
        if holds(tree, path):
            return begin + _find_statement(lines[begin:end], path)
        begin = end
    return None


def holds(tree: Mapping[str, object], path: Sequence[str]) -> bool:
    """Return whether a tree of tables holds a key."""
    found: object = tree
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return False
        found = found[name]
    return True


def trim(tree: Mapping[str, object], path: Sequence[object]) -> tuple[str, ...]:
    """Cut a path to the part that a tree holds."""
    names = tuple(str(name) for name in path)
    return next((names[:count] for count in range(len(names), 0, -1) if holds(tree, names[:count])), ())


def split_key(tree: Mapping[str, object], key: str) -> tuple[str, ...]:
    """Split a dotted key as far as a tree holds it. Names in the tree may contain dots."""
    parts = key.split(".")
    for count in range(len(parts), 0, -1):
        name = ".".join(parts[:count])
        if name in tree:
            inner = tree[name]
            rest = ".".join(parts[count:])
            return (name, *(split_key(inner, rest) if isinstance(inner, Mapping) and rest else ()))
    return ()


def _find_statement(lines: Sequence[str], path: Sequence[str]) -> int:
    begin = 0
    for end in range(1, len(lines) + 1):
        tree = _parse(lines[:end])
        if tree is None:
            continue
        if holds(tree, path):
            break
        begin = end
    return begin + 1


def _parse(lines: Sequence[str]) -> dict[str, object] | None:
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        return None
